"""From the rows of a batch to the bytes of a ClassifyResponse."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convserve_protos import classifier_pb2 as pb
from convserve_server.batching.request import Answer, Outcome
from convserve_server.errors import InternalFault, ServeError, to_status
from convserve_server.service.dispatcher import Reply
from convserve_server.service.rows import results_of


@dataclass(frozen=True)
class Responder:
    """Answers one call with what a batcher made of its images.

    Args:
        reply: takes the answer.
        header: serialized beginning of the response; see ModelVersion.
        request_id: repeated in the response.
        top_k: only so many classes of each image, or None for all.
        failures: images that have no answer, by their place in the request.
        wait_s: waiting before that, seconds.
        decode_s: decoding, seconds.
    """

    reply: Reply
    header: bytes
    request_id: str
    top_k: int | None
    failures: Mapping[int, ServeError] = field(default_factory=dict)
    wait_s: float = 0.0
    decode_s: float = 0.0

    def __call__(self, outcome: Outcome) -> None:
        """Reply with the response, or the error."""
        if isinstance(outcome, ServeError):
            self.reply(outcome)
            return
        if outcome.damaged:
            self._reply_without_damaged(outcome)
            return
        try:
            # What is the same in all responses is serialized once: protobuf merges what follows.
            payload = self.header + self._body(outcome)
        except Exception as error:  # noqa: BLE001 - the caller must be told, whatever it is
            self.reply(InternalFault("building the response", error))
        else:
            self.reply(payload)

    def _reply_without_damaged(self, answer: Answer) -> None:
        """Reply with a fault of ours in place of each row that is not finite."""
        cause = ArithmeticError("probabilities: expected finite numbers, got others")
        fault = InternalFault("running the model", cause)
        good = np.asarray(np.isfinite(answer.probabilities).all(axis=1))
        count = len(good) + len(self.failures)
        if count == 1:
            self.reply(fault)
            return
        places = [place for place in range(count) if place not in self.failures]
        faults = {place: fault for place, fine in zip(places, good, strict=True) if not fine}
        rest = dataclasses.replace(self, failures={**self.failures, **faults})
        rest(answer._replace(probabilities=answer.probabilities[good], damaged=False))

    def _body(self, answer: Answer) -> bytes:
        response = self._framed(answer)
        rows = answer.probabilities
        if self.top_k is None and not self.failures:
            return results_of(rows) + response.SerializeToString()
        if self.top_k is None:
            for row in rows.tolist():
                self._next(response).probabilities.extend(row)
        else:
            classes = top_classes(rows, self.top_k)
            top = np.take_along_axis(rows, classes, axis=1)
            for indices, row in zip(classes.tolist(), top.tolist(), strict=True):
                self._add_top(response, indices, row)
        self._add_failures(response)
        return response.SerializeToString()

    def _framed(self, answer: Answer) -> pb.ClassifyResponse:
        """The response without results."""
        return pb.ClassifyResponse(
            id=self.request_id,
            timings=pb.Timings(
                queue_us=round((self.wait_s + answer.queue_s) * 1e6),
                compute_us=round(answer.compute_s * 1e6),
                decode_us=round(self.decode_s * 1e6),
            ),
        )

    def _add_top(
        self, response: pb.ClassifyResponse, classes: Sequence[int], probabilities: Sequence[float]
    ) -> None:
        prediction = self._next(response)
        prediction.classes.extend(classes)
        prediction.probabilities.extend(probabilities)

    def _next(self, response: pb.ClassifyResponse) -> pb.Prediction:
        """The prediction of the next image that has one, after those before it that failed."""
        self._add_failures(response)
        return response.results.add().prediction

    def _add_failures(self, response: pb.ClassifyResponse) -> None:
        """Add the results of the images that come next and failed."""
        while failure := self.failures.get(len(response.results)):
            response.results.add().error.CopyFrom(to_status(failure))


def top_classes(rows: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """The k most probable classes of each row, most probable first, ties by index.

    Args:
        rows: float32 [N, K].
        k: 1 to K.

    Returns: int [N, k].
    """
    classes: NDArray[np.intp] = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return classes
