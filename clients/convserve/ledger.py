"""What is under way on one stream: which answer belongs to which request, and what is overdue."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import grpc
import numpy.typing as npt

from convserve.calls import Images, Question, split, split_images
from convserve.encoded import File, is_encoded
from convserve.errors import (
    ConvserveError,
    DeadlineExceeded,
    InvalidRequest,
    ServerUnavailable,
    UnexpectedReply,
)
from convserve.replies import read_replies
from convserve.results import Classification
from convserve.settings import Settings
from convserve.statuses import error_from_status
from convserve_protos import classifier_pb2

Item: TypeAlias = "npt.ArrayLike | File | Sequence[File]"
"""What a stream takes: pixels of images, or one file or several."""


def iterator_of(items: object) -> Iterator[Item]:
    """Returns an iterator over the items of a stream.

    Raises:
        InvalidRequest: There is none, or it would give the characters of a text, or bytes.
    """
    if not isinstance(items, (str, bytes, bytearray, memoryview)):
        with contextlib.suppress(TypeError):
            return iter(items)  # type: ignore[call-overload, no-any-return]  # That is tried.
    raise InvalidRequest.expected("items", "an iterable of images", type(items).__name__)


Outcome = Classification | ConvserveError


@dataclass(frozen=True, slots=True)
class _Sent:
    count: int
    moment_s: float


class Ledger:
    """Numbers the requests of a stream and matches the answers to them.

    Requests are entered by one thread while another reads answers.
    """

    def __init__(self, question: Question, settings: Settings, timeout_s: float) -> None:
        self._question = question
        self._settings = settings
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._open: dict[str, _Sent] = {}  # Oldest first.
        self._finished = False

    def enter(self, index: int, item: Item) -> classifier_pb2.StreamClassifyRequest:
        """Returns the message for the images with that number.

        Raises:
            InvalidRequest: The images are not what is taken, or too many for one message.
        """
        images = self._one_call(item)
        request = self._question.request(images, request_id=str(index))
        with self._lock:
            self._open[request.id] = _Sent(len(images), time.monotonic())
        return classifier_pb2.StreamClassifyRequest(request=request)

    def settle(self, response: classifier_pb2.StreamClassifyResponse) -> tuple[int, Outcome]:
        """Returns the number of the images that an answer belongs to, and the outcome.

        Raises:
            UnexpectedReply: It answers nothing that is under way, or does not fit the request.
        """
        with self._lock:
            sent = self._open.pop(response.id, None)
        if sent is None:
            raise UnexpectedReply(f"an answer came for id {response.id!r}, which is not under way")
        index = int(response.id)
        if response.WhichOneof("outcome") == "error":
            return index, error_from_status(response.error)
        total_us = round((time.monotonic() - sent.moment_s) * 1e6)
        return index, read_replies([response.response], [sent.count], self._question, total_us)

    def patience_s(self) -> float:
        """Returns for how many seconds there is nothing to complain about.

        Raises:
            DeadlineExceeded: A request has had no answer for the timeout.
        """
        with self._lock:
            oldest = next(iter(self._open.items()), None)
        if oldest is None:
            return self._timeout_s
        index, sent = oldest
        left_s = sent.moment_s + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(
                f"no answer from {self._settings.server} within {self._timeout_s:g} s to item"
                f" {index} of the stream",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            )
        return left_s

    def finish(self) -> None:
        """Notes that there are no more requests to come."""
        with self._lock:
            self._finished = True

    def close(self) -> None:
        """Ends the stream in good order.

        Raises:
            ServerUnavailable: The server ended it before all was sent and answered, as it does when
                it stops.
        """
        with self._lock:
            left, finished = len(self._open), self._finished
        if left or not finished:
            raise ServerUnavailable(
                f"{self._settings.server} ended the stream, as it does when it stops, with "
                f"{left} items unanswered{'' if finished else ' and others not sent'}",
                code=grpc.StatusCode.UNAVAILABLE,
            )

    def _one_call(self, item: Item) -> Images:
        calls: Sequence[Images]
        if is_encoded(item):
            field, calls = "images", split_images(item, self._settings)
        else:
            field, calls = "pixels", split(cast("npt.ArrayLike", item), self._settings)
        if len(calls) > 1:
            count = sum(len(images) for images in calls)
            raise InvalidRequest.expected(
                field,
                f"at most {len(calls[0])} images of this size in one item of a stream",
                f"{count} images",
            )
        return calls[0]
