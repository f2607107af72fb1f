"""From the rows of a batch to the bytes of a ClassifyResponse."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.batch_request import Answer, Outcome
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import ServeError
from convserve_server.engines.base import Pixels, Probabilities
from convserve_server.protocols.base import Call
from convserve_server.protocols.convserve_v1.requests import (
    PixelsRequest,
    check_pixels,
    check_top_k,
)
from convserve_server.protocols.convserve_v1.rows import results_of, timings_of
from convserve_server.protocols.grpc_errors import to_status
from convserve_server.protocols.outcomes import answer_call, damaged_rows


class _Reply:
    """Answers one call with what became of its images.

    What a call with pixels never changes is an attribute of the class: it costs nothing there.
    """

    __slots__ = ("_call", "_head", "_thresholds", "_top_k")

    _call: Call
    #: The beginning of the response, serialized.
    _head: bytes
    #: Only so many classes of each image, or None for all.
    _top_k: int | None
    #: Of a model whose images have several labels; otherwise empty.
    _thresholds: tuple[float, ...]
    # Images that have no row, by their index; what was done before the batcher, seconds.
    _failures: Mapping[int, ServeError] = MappingProxyType({})
    # Those that have a row, by their index, if their pixels go into the answer.
    _images: Mapping[int, Pixels] | None = None
    _wait_s = 0.0
    _decode_s = 0.0

    def finish(self, outcome: Outcome) -> None:
        """See InputsAnswer.finish."""
        answer_call(self._call, outcome, self._serialize)

    def _serialize(self, answer: Answer) -> bytes:
        """Returns the response.

        Raises:
            InternalFault: if the row of the only image is not finite.
        """
        # What is the same in all responses is serialized once: protobuf merges what follows.
        timings = timings_of(self._wait_s + answer.queue_s, answer.compute_s, self._decode_s)
        failures, rows = self._failures, answer.rows
        if answer.damaged:
            rows, failures = _without_damaged(rows, failures)
        plain = self._top_k is None and not self._thresholds
        if plain and not failures and self._images is None:
            return b"".join((self._head, results_of(rows), timings))
        response = pb.ClassifyResponse()
        results = _Results(response, failures, self._images)
        predictions = [results.add() for _ in rows]
        results.add_failures()
        if self._top_k is None:
            for prediction, row in zip(predictions, rows.tolist(), strict=True):
                prediction.probabilities.extend(row)
        else:
            classes = top_classes(rows, self._top_k)
            top = np.take_along_axis(rows, classes, axis=1)
            for prediction, indices, row in zip(
                predictions, classes.tolist(), top.tolist(), strict=True
            ):
                prediction.classes.extend(indices)
                prediction.probabilities.extend(row)
        if self._thresholds:
            _assign(predictions, rows, self._thresholds)
        return b"".join((self._head, response.SerializeToString(), timings))


class PixelsReply(_Reply):
    """See InputsAnswer.

    Args:
        call: to be answered.
        request: of the call, with images as pixels.
        buffer: bytes in which the pixels lie.
        max_images: most images in one request.
    """

    __slots__ = ("_buffer", "_max_images", "_request")

    def __init__(self, call: Call, request: PixelsRequest, buffer: bytes, max_images: int) -> None:
        self._call = call
        self._top_k = request.top_k
        self._request = request
        self._buffer: bytes | None = buffer
        self._max_images = max_images

    def inputs(self, model: ModelDescription) -> Pixels:
        """See InputsAnswer.inputs."""
        request, buffer = self._request, self._buffer
        assert buffer is not None
        self._call.model = model.key
        accepted = request.accepted
        if accepted is None or accepted[0] is not model:
            check_pixels(request, model, self._max_images)
            if request.top_k is not None:
                check_top_k(request.top_k, model)
            accepted = request.accepted = model, _head(model, request.request_id)
        self._head = accepted[1]
        self._thresholds = model.thresholds
        return request.pixels(buffer)

    @property
    def size(self) -> int:
        """See InputsAnswer.size."""
        return 0 if self._buffer is None else self._request.size

    def queued(self) -> None:
        """See InputsAnswer.queued."""
        self._buffer = None


class FilesReply(_Reply):
    """See FilesAnswer.

    Args:
        call: to be answered.
        request: of the call, with images as files.
    """

    __slots__ = (
        "_decode_s",
        "_failures",
        "_images",
        "_request_id",
        "_return_pixels",
        "_wait_s",
    )

    def __init__(self, call: Call, request: pb.ClassifyRequest) -> None:
        self._call = call
        self._request_id = request.id
        self._top_k = request.top_k if request.HasField("top_k") else None
        self._return_pixels = request.return_pixels

    def begin(self, model: ModelDescription) -> None:
        """See FilesAnswer.begin."""
        self._call.model = model.key
        if self._top_k is not None:
            check_top_k(self._top_k, model)
        self._head = _head(model, self._request_id)
        self._thresholds = model.thresholds

    def decoded(
        self,
        failures: Mapping[int, ServeError],
        images: Mapping[int, Pixels],
        wait_s: float,
        decode_s: float,
    ) -> None:
        """See FilesAnswer.decoded."""
        self._failures = failures
        self._images = images if self._return_pixels else None
        self._wait_s = wait_s
        self._decode_s = decode_s


class _Results:
    """The results of a response, in the order of the images.

    Args:
        response: to which they are added.
        failures: of the images that have no row, by their index.
        images: of the others, by their index, if their pixels go into the answer.
    """

    def __init__(
        self,
        response: pb.ClassifyResponse,
        failures: Mapping[int, ServeError],
        images: Mapping[int, Pixels] | None,
    ) -> None:
        self._response = response
        self._failures = failures
        self._images = images

    def add(self) -> pb.Prediction:
        """Adds a result for the next image that has a row, and those before it that failed."""
        self.add_failures()
        index = len(self._response.results)
        prediction = self._response.results.add().prediction
        if self._images is not None:
            prediction.pixels = self._images[index].tobytes()
        return prediction

    def add_failures(self) -> None:
        """Adds the results of the images that come next and failed."""
        while failure := self._failures.get(len(self._response.results)):
            self._response.results.add().error.CopyFrom(to_status(failure))


def _without_damaged(
    rows: Probabilities, failures: Mapping[int, ServeError]
) -> tuple[Probabilities, Mapping[int, ServeError]]:
    """Puts a fault of ours in place of each row that is not finite.

    Args:
        rows: float32 [N, K].
        failures: of the images that have no row, by their index.

    Returns: the rows that are finite, and the failures with those of the others.

    Raises:
        InternalFault: if there is only one image.
    """
    fault = damaged_rows()
    good = np.asarray(np.isfinite(rows).all(axis=1))
    count = len(good) + len(failures)
    if count == 1:
        raise fault
    indices = [index for index in range(count) if index not in failures]
    faults = {index: fault for index, fine in zip(indices, good, strict=True) if not fine}
    return rows[good], {**failures, **faults}


def _head(model: ModelDescription, request_id: str) -> bytes:
    """Returns the serialized beginning of a response."""
    of_model = _of_model(model)
    if not request_id:
        return of_model
    return pb.ClassifyResponse(id=request_id).SerializeToString() + of_model


@lru_cache(maxsize=256)
def _of_model(model: ModelDescription) -> bytes:
    """Returns what all responses of a version have."""
    response = pb.ClassifyResponse(
        model=model.name,
        version=model.version,
        labels=model.labels,
        thresholds=model.thresholds,
    )
    return response.SerializeToString()


def _assign(
    predictions: Sequence[pb.Prediction], rows: Probabilities, thresholds: Sequence[float]
) -> None:
    """Gives each prediction the labels whose probability reaches their threshold.

    Args:
        predictions: one a row.
        rows: float32 [N, K].
        thresholds: K, each one that a float32 holds.
    """
    reached = rows >= np.array(thresholds, np.float32)
    order = top_classes(rows, rows.shape[1])
    for prediction, row, indices, has in zip(predictions, rows, order, reached, strict=True):
        assigned = indices[has[indices]]
        prediction.assigned.extend(assigned.tolist())
        prediction.assigned_probabilities.extend(row[assigned].tolist())


def top_classes(rows: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Returns the k most probable classes of each row, most probable first, ties by index.

    Args:
        rows: float32 [N, K].
        k: 1 to K.

    Returns: int [N, k].
    """
    classes: NDArray[np.intp] = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return classes
