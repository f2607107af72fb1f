"""What is under way on one stream: which answer belongs to which request, and what is overdue."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import grpc
import numpy.typing as npt

from convserve.calls import ClassifyOptions, Images, split, split_images
from convserve.deadline import Deadline
from convserve.encoded import File, is_encoded
from convserve.error_mapping import error_from_status
from convserve.errors import (
    ConvserveError,
    DeadlineExceeded,
    InvalidRequest,
    ServerUnavailable,
    UnexpectedReply,
)
from convserve.replies import read_replies
from convserve.results import Classification
from convserve.retries import Tries
from convserve.settings import Settings
from convserve_protos import classifier_pb2

Item: TypeAlias = "npt.ArrayLike | File | Sequence[File]"
"""An item of a stream: pixels of images, or one file or several."""


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
    request: classifier_pb2.ClassifyRequest
    options: ClassifyOptions
    count: int
    size: int
    moment_s: float


class Refused:
    """A request of a stream that a busy server refused, to be made again as a call of its own.

    Not over the stream: its requests are drawn by a thread that may wait for the caller's items.

    Attributes:
        request: The message.
        deadline: That of its answer.
        pause_s: When it is due, in seconds from the refusal.
    """

    def __init__(
        self, sent: _Sent, deadline: Deadline, tries: Tries, error: ConvserveError
    ) -> None:
        """Notes the first refusal.

        Raises:
            ConvserveError: There is no other try.
        """
        self.request = sent.request
        self.deadline = deadline
        self.pause_s = tries.pause_s(error)
        self._sent = sent
        self._tries = tries

    def answered(self, reply: classifier_pb2.ClassifyResponse) -> Outcome:
        """Returns what the caller gets for the reply to another try.

        Raises:
            UnexpectedReply: It does not fit the request.
        """
        sent = self._sent
        return read_replies([reply], [sent.count], sent.options, self.deadline.spent_us())

    def failed(self, error: ConvserveError) -> Outcome | Refused:
        """Returns what the caller gets for another try that failed, or this again for one more."""
        try:
            self.pause_s = self._tries.pause_s(error)
        except ConvserveError as last:
            return last
        return self


class PendingRequests:
    """Numbers the requests of a stream and matches the answers to them.

    Requests are added by one thread while another reads answers.
    """

    def __init__(
        self, options_for: Callable[[Images], ClassifyOptions], settings: Settings, timeout_s: float
    ) -> None:
        """Starts with nothing under way.

        Args:
            options_for: What is asked of the images of one request.
            settings: Say how large a request may be.
            timeout_s: Longest wait for the answer to one, in seconds.
        """
        self._options_for = options_for
        self._settings = settings
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._open: dict[str, _Sent] = {}  # Oldest first.
        self._all_sent = False
        self._largest_bytes = 0

    def add(self, index: int, item: Item) -> classifier_pb2.StreamClassifyRequest:
        """Returns the message for the images with that number.

        Raises:
            InvalidRequest: The images are of the wrong kind, or too many for one message; or no
                model was named and several fit.
        """
        images = self._one_call(item)
        options = self._options_for(images)
        request = options.request(images, request_id=str(index))
        size = request.ByteSize()
        with self._lock:
            self._largest_bytes = max(self._largest_bytes, size)
            self._open[request.id] = _Sent(request, options, len(images), size, time.monotonic())
        return classifier_pb2.StreamClassifyRequest(request=request)

    def match(
        self, response: classifier_pb2.StreamClassifyResponse
    ) -> tuple[int, Outcome | Refused]:
        """Returns the number of the images that an answer belongs to, and the outcome.

        A request that is to be made again is no longer under way here.

        Raises:
            UnexpectedReply: It answers nothing that is under way, or does not fit the request.
        """
        with self._lock:
            sent = self._open.pop(response.id, None)
        if sent is None:
            raise UnexpectedReply(f"an answer came for id {response.id!r}, which is not under way")
        index = int(response.id)
        if response.WhichOneof("outcome") == "error":
            error = error_from_status(response.error, lambda: sent.size)
            deadline = Deadline(self._timeout_s, sent.moment_s + self._timeout_s)
            try:
                return index, Refused(sent, deadline, Tries.of(deadline, self._settings), error)
            except ConvserveError as last:
                return index, last
        total_us = round((time.monotonic() - sent.moment_s) * 1e6)
        return index, read_replies([response.response], [sent.count], sent.options, total_us)

    def seconds_left(self) -> float:
        """Returns the seconds until the oldest answer is overdue.

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

    def largest_bytes(self) -> int:
        """Returns the size of the largest message so far, in bytes."""
        with self._lock:
            return self._largest_bytes

    def end_sending(self) -> None:
        """Notes that there are no more requests to come."""
        with self._lock:
            self._all_sent = True

    def check_complete(self) -> None:
        """Checks, at the end of the stream, that everything was sent and answered.

        Raises:
            ServerUnavailable: The server ended it before all was sent and answered, as it does when
                it stops.
        """
        with self._lock:
            left, all_sent = len(self._open), self._all_sent
        if left or not all_sent:
            raise ServerUnavailable(
                f"{self._settings.server} ended the stream, as it does when it stops, with "
                f"{left} items unanswered{'' if all_sent else ' and others not sent'}",
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
