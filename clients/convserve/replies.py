"""From the replies to all calls of a request to one Classification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from convserve.calls import Question
from convserve.errors import ConvserveError, UnexpectedReply
from convserve.results import Classification, Timings
from convserve.statuses import error_from_status
from convserve_protos import classifier_pb2


def read_replies(
    replies: Sequence[classifier_pb2.ClassifyResponse],
    counts: Sequence[int],
    question: Question,
    total_us: int,
) -> Classification:
    """Puts the replies to the calls of one request together.

    Args:
        replies: One for each call, in the order of the images.
        counts: Number of images in each call.
        question: What was asked.
        total_us: What the request took, in microseconds.

    Raises:
        UnexpectedReply: A reply has not one result for each image, or not as many probabilities as
            asked for; or the server switched to a version with other labels between two calls.
    """
    labels = tuple(replies[0].labels)
    for reply, count in zip(replies, counts, strict=True):
        if len(reply.results) != count:
            raise UnexpectedReply(f"{count} images were sent, {len(reply.results)} results came")
        if tuple(reply.labels) != labels:
            raise UnexpectedReply(
                f"versions {replies[0].version} and {reply.version} of model {reply.model} answered"
                " and have different labels; ask again, or name a version"
            )
    columns = len(labels) if question.top_k is None else question.top_k
    results = list(chain.from_iterable(reply.results for reply in replies))
    errors = dict(_errors(results))
    probabilities = np.array(list(_rows(results, columns)), np.float32)
    return Classification(
        model=replies[0].model,
        versions=tuple(sorted({reply.version for reply in replies}, reverse=True)),
        labels=labels,
        probabilities=probabilities,
        classes=_classes(results, question, labels),
        errors=errors,
        timings=Timings(
            queue_us=max(reply.timings.queue_us for reply in replies),
            compute_us=sum(reply.timings.compute_us for reply in replies),
            total_us=total_us,
            calls=len(replies),
        ),
    )


def _errors(
    results: Sequence[classifier_pb2.ImageResult],
) -> Iterator[tuple[int, ConvserveError]]:
    for place, result in enumerate(results):
        if result.WhichOneof("outcome") == "error":
            yield place, error_from_status(result.error)


def _rows(results: Sequence[classifier_pb2.ImageResult], columns: int) -> Iterator[Sequence[float]]:
    nothing = [float("nan")] * columns
    for place, result in enumerate(results):
        outcome = result.WhichOneof("outcome")
        # A slice of a repeated field is a list, which NumPy reads many times faster than the field.
        row = result.prediction.probabilities[:] if outcome == "prediction" else nothing
        if outcome is None or not 1 <= len(row) == columns:
            raise UnexpectedReply(
                f"image {place} has {len(row) if outcome else 'no'} probabilities, not {columns}"
            )
        yield row


def _classes(
    results: Sequence[classifier_pb2.ImageResult], question: Question, labels: tuple[str, ...]
) -> npt.NDArray[np.intp]:
    if question.top_k is None:
        return np.broadcast_to(np.arange(len(labels)), (len(results), len(labels)))
    nothing = [0] * question.top_k
    rows = [
        result.prediction.classes[:] if result.HasField("prediction") else nothing
        for result in results
    ]
    if any(len(row) != question.top_k or max(row) >= len(labels) for row in rows):
        raise UnexpectedReply(
            f"of {len(labels)} classes the {question.top_k} most probable were asked for; the reply"
            " does not name them"
        )
    return np.array(rows, np.intp)
