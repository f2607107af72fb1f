"""From the replies to all calls of a request to one Classification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from convserve.calls import ClassifyOptions
from convserve.error_mapping import error_from_status
from convserve.errors import BadImage, ConvserveError, UnexpectedReply
from convserve.results import Classification, ClassScore, Timings
from convserve_protos import classifier_pb2

Reply = classifier_pb2.ClassifyResponse | BadImage
"""What came of one call: an answer, or what is wrong with the only image that was in it."""

_Outcome = classifier_pb2.Prediction | ConvserveError | None


def read_replies(
    replies: Sequence[Reply],
    counts: Sequence[int],
    options: ClassifyOptions,
    total_us: int,
) -> Classification:
    """Puts the replies to the calls of one request together.

    Args:
        replies: One for each call, in the order of the images. An image alone in its call that
            cannot be used is an error of its own and has no labels and no version.
        counts: Number of images in each call.
        options: What was asked.
        total_us: What the request took, in microseconds.

    Raises:
        UnexpectedReply: A reply has not one result for each image, or not as many probabilities as
            asked for; or the server switched between two calls to a version with other labels or
            thresholds.
    """
    answers = [reply for reply in replies if not isinstance(reply, BadImage)]
    labels = tuple(answers[0].labels) if answers else ()
    thresholds = tuple(answers[0].thresholds) if answers else ()
    outcomes: list[_Outcome] = []
    for reply, count in zip(replies, counts, strict=True):
        if isinstance(reply, BadImage):
            outcomes.append(reply)
            continue
        if len(reply.results) != count:
            raise UnexpectedReply(f"{count} images were sent, {len(reply.results)} results came")
        if tuple(reply.labels) != labels or tuple(reply.thresholds) != thresholds:
            raise UnexpectedReply(
                f"versions {answers[0].version} and {reply.version} of model {reply.model} answered"
                " and have different labels or thresholds; ask again, or name a version"
            )
        outcomes.extend(_outcome(result) for result in reply.results)
    columns = len(labels) if options.top_k is None else options.top_k
    return Classification(
        model=answers[0].model if answers else options.model,
        versions=tuple(sorted({answer.version for answer in answers}, reverse=True)),
        labels=labels,
        probabilities=np.array(list(_rows(outcomes, columns)), np.float32),
        classes=_classes(outcomes, options, labels),
        errors={
            index: outcome
            for index, outcome in enumerate(outcomes)
            if isinstance(outcome, ConvserveError)
        },
        timings=Timings(
            queue_us=max((answer.timings.queue_us for answer in answers), default=0),
            decode_us=sum(answer.timings.decode_us for answer in answers),
            compute_us=sum(answer.timings.compute_us for answer in answers),
            total_us=total_us,
            calls=len(replies),
        ),
        thresholds=thresholds,
        above_threshold=(
            [_above_threshold(outcome, labels) for outcome in outcomes] if thresholds else ()
        ),
    )


def _outcome(result: classifier_pb2.ImageResult) -> _Outcome:
    kind = result.WhichOneof("outcome")
    if kind == "error":
        return error_from_status(result.error)
    return result.prediction if kind else None


def _above_threshold(outcome: _Outcome, labels: Sequence[str]) -> tuple[ClassScore, ...]:
    """Returns the labels that an image has; none for one without an answer."""
    if not isinstance(outcome, classifier_pb2.Prediction):
        return ()
    indices, probabilities = outcome.assigned[:], outcome.assigned_probabilities[:]
    if len(indices) != len(probabilities) or max(indices, default=0) >= len(labels):
        raise UnexpectedReply(
            f"{len(indices)} labels above their threshold came with {len(probabilities)} "
            f"probabilities, of {len(labels)} labels"
        )
    return tuple(
        ClassScore(labels[index], probability)
        for index, probability in zip(indices, probabilities, strict=True)
    )


def _rows(outcomes: Sequence[_Outcome], columns: int) -> Iterator[Sequence[float]]:
    nothing = [float("nan")] * columns
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, ConvserveError):
            yield nothing
            continue
        # A slice of a repeated field is a list, which NumPy reads many times faster than the field.
        row = outcome.probabilities[:] if outcome else []
        if not 1 <= len(row) == columns:
            raise UnexpectedReply(
                f"image {index} has {len(row) if outcome else 'no'} probabilities, not {columns}"
            )
        yield row


def _classes(
    outcomes: Sequence[_Outcome], options: ClassifyOptions, labels: tuple[str, ...]
) -> npt.NDArray[np.intp]:
    if options.top_k is None:
        return np.broadcast_to(np.arange(len(labels)), (len(outcomes), len(labels)))
    rows = []
    for outcome in outcomes:
        if not isinstance(outcome, classifier_pb2.Prediction):
            rows.append([0] * options.top_k)
            continue
        row = outcome.classes[:]
        if len(row) != options.top_k or max(row) >= len(labels):
            raise UnexpectedReply(
                f"of {len(labels)} classes the {options.top_k} most probable were asked for; the"
                " reply does not name them"
            )
        rows.append(row)
    return np.array(rows, np.intp)
