"""From the rows of a batch to the bytes of a ClassifyResponse."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_request import Answer, Outcome
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import ServeError
from convserve_server.engines.base import Pixels
from convserve_server.protocols.base import Call
from convserve_server.protocols.convserve_v1.requests import check_top_k, read_pixels
from convserve_server.protocols.convserve_v1.rows import results_of
from convserve_server.protocols.grpc_errors import to_status
from convserve_server.protocols.outcomes import answer_call, damaged_rows

_NO_FAILURES: Mapping[int, ServeError] = MappingProxyType({})


class _Reply:
    """Answers one call with what became of its images.

    Args:
        call: to be answered.
        request_id: repeated in the response.
        top_k: only so many classes of each image, or None for all.
    """

    __slots__ = (
        "_call",
        "_decode_s",
        "_failures",
        "_images",
        "_model",
        "_request_id",
        "_top_k",
        "_wait_s",
    )

    _model: ModelDescription

    def __init__(self, call: Call, request_id: str, top_k: int | None) -> None:
        self._call = call
        self._request_id = request_id
        self._top_k = top_k
        # Images that have no row, by their index; what was done before the batcher, seconds.
        self._failures = _NO_FAILURES
        # Those that have a row, by their index, if their pixels go into the answer.
        self._images: Mapping[int, Pixels] | None = None
        self._wait_s = 0.0
        self._decode_s = 0.0

    def begin(self, model: ModelDescription) -> None:
        """See FilesAnswer.begin."""
        self._call.model = model.key
        if self._top_k is not None:
            check_top_k(self._top_k, model)
        self._model = model

    def finish(self, outcome: Outcome) -> None:
        """See InputsAnswer.finish."""
        answer_call(self._call, outcome, self._serialize)

    def _serialize(self, answer: Answer) -> bytes:
        """Returns the response.

        Raises:
            InternalFault: if the row of the only image is not finite.
        """
        if answer.damaged:
            answer = self._without_damaged(answer)
        rows = answer.rows
        response = pb.ClassifyResponse(
            id=self._request_id,
            timings=pb.Timings(
                queue_us=round((self._wait_s + answer.queue_s) * 1e6),
                compute_us=round(answer.compute_s * 1e6),
                decode_us=round(self._decode_s * 1e6),
            ),
        )
        # What is the same in all responses is serialized once: protobuf merges what follows.
        header = _header(self._model)
        if self._top_k is None and not self._failures and self._images is None:
            return header + results_of(rows) + response.SerializeToString()
        if self._top_k is None:
            for row in rows.tolist():
                self._add_prediction(response).probabilities.extend(row)
        else:
            classes = top_classes(rows, self._top_k)
            top = np.take_along_axis(rows, classes, axis=1)
            for indices, row in zip(classes.tolist(), top.tolist(), strict=True):
                prediction = self._add_prediction(response)
                prediction.classes.extend(indices)
                prediction.probabilities.extend(row)
        self._add_failures(response)
        return header + response.SerializeToString()

    def _without_damaged(self, answer: Answer) -> Answer:
        """Puts a fault of ours in place of each row that is not finite."""
        fault = damaged_rows()
        rows = answer.rows
        good = np.asarray(np.isfinite(rows).all(axis=1))
        count = len(good) + len(self._failures)
        if count == 1:
            raise fault
        indices = [index for index in range(count) if index not in self._failures]
        faults = {index: fault for index, fine in zip(indices, good, strict=True) if not fine}
        self._failures = {**self._failures, **faults}
        return answer._replace(outputs=rows[good], damaged=False)

    def _add_prediction(self, response: pb.ClassifyResponse) -> pb.Prediction:
        """Adds a result for the next image that has a row, and those before it that failed."""
        self._add_failures(response)
        index = len(response.results)
        prediction = response.results.add().prediction
        if self._images is not None:
            prediction.pixels = self._images[index].tobytes()
        return prediction

    def _add_failures(self, response: pb.ClassifyResponse) -> None:
        """Adds the results of the images that come next and failed."""
        while failure := self._failures.get(len(response.results)):
            response.results.add().error.CopyFrom(to_status(failure))


class PixelsReply(_Reply):
    """See InputsAnswer.

    Args:
        call: to be answered.
        request: of the call, with images as pixels.
        max_images: most images in one request.
    """

    __slots__ = ("_max_images", "_request")

    def __init__(self, call: Call, request: pb.ClassifyRequest, max_images: int) -> None:
        super().__init__(call, request.id, request.top_k if request.HasField("top_k") else None)
        self._request: pb.ClassifyRequest | None = request
        self._max_images = max_images

    def inputs(self, model: ModelDescription) -> Pixels:
        """See InputsAnswer.inputs."""
        assert self._request is not None
        self._call.model = model.key
        images = read_pixels(self._request, model, self._max_images)
        if self._top_k is not None:
            check_top_k(self._top_k, model)
        self._model = model
        return images

    @property
    def size(self) -> int:
        """See InputsAnswer.size."""
        return 0 if self._request is None else len(self._request.pixels.data)

    def queued(self) -> None:
        """See InputsAnswer.queued."""
        self._request = None


class FilesReply(_Reply):
    """See FilesAnswer.

    Args:
        call: to be answered.
        request: of the call, with images as files.
    """

    __slots__ = ("_return_pixels",)

    def __init__(self, call: Call, request: pb.ClassifyRequest) -> None:
        super().__init__(call, request.id, request.top_k if request.HasField("top_k") else None)
        self._return_pixels = request.return_pixels

    def decoded(
        self,
        failures: Mapping[int, ServeError],
        images: Mapping[int, Pixels],
        wait_s: float,
        decode_s: float,
    ) -> None:
        """See FilesAnswer.decoded."""
        self._failures = failures
        if self._return_pixels:
            self._images = images
        self._wait_s = wait_s
        self._decode_s = decode_s


@lru_cache(maxsize=256)
def _header(model: ModelDescription) -> bytes:
    """Returns the serialized beginning of all responses of a version."""
    response = pb.ClassifyResponse(model=model.name, version=model.version, labels=model.labels)
    return response.SerializeToString()


def top_classes(rows: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Returns the k most probable classes of each row, most probable first, ties by index.

    Args:
        rows: float32 [N, K].
        k: 1 to K.

    Returns: int [N, k].
    """
    classes: NDArray[np.intp] = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return classes
