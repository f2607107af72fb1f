"""What came of the calls: how long they took, which failed, and where the server spent the time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from convserve_bench.histogram import Histogram
from convserve_bench.outcomes import OK, Ended, Status
from convserve_protos import classifier_pb2

#: Of so many replies one is read; all are checked for their status and size.
_READ_ONE_OF = 16


class Failures:
    """Failed calls by their status, with the first message of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.messages: dict[str, str] = {}

    def add(self, status: Status) -> None:
        """Counts one."""
        self.counts[status.name] = self.counts.get(status.name, 0) + 1
        self.messages.setdefault(status.name, status.message)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())


class ServerTime:
    """Where the server spent the time of those replies that were read, in microseconds."""

    def __init__(self) -> None:
        self.replies = 0
        self._sums = [0, 0, 0]

    def add(self, timings: classifier_pb2.Timings) -> None:
        """Counts one."""
        self.replies += 1
        for index, value in enumerate((timings.queue_us, timings.decode_us, timings.compute_us)):
            self._sums[index] += value

    def means_us(self) -> dict[str, float] | None:
        """Returns the means of queue, decode and compute; None if no reply has them."""
        if not any(self._sums):
            return None
        names = ("queue", "decode", "compute")
        return {name: sum_ / self.replies for name, sum_ in zip(names, self._sums, strict=True)}


class Tally:
    """Counts what began at a moment or later.

    Attributes:
        histogram: Of the latencies of calls that were answered.
        failures: Those that were not.
        server: From the replies.
        seen: Calls that are over, whether they count or not.
        in_time: Of these, such as were answered in time.
        answered: Calls that were answered in time between the two moments, whenever they began.
    """

    def __init__(self, images: int, least_reply_bytes: int, timeout_s: float = math.inf) -> None:
        """Counts nothing before `between` was called.

        Args:
            images: In each call.
            least_reply_bytes: Size of the smallest right answer.
            timeout_s: An answer that comes later than that, from when the call was due, is one that
                nobody waits for: DEADLINE_EXCEEDED, as with any client of gRPC.
        """
        self.histogram = Histogram()
        self.failures = Failures()
        self.server = ServerTime()
        self.seen = self.in_time = 0
        self.answered = 0
        self._images = images
        self._least = least_reply_bytes
        self._timeout_s = timeout_s
        self._late = Status("DEADLINE_EXCEEDED", f"answered after {timeout_s:g} s")
        self._from_s = self._to_s = float("inf")
        self._buffer: list[float] = []
        self._read_at = 0

    def between(self, from_s: float, to_s: float) -> None:
        """Says when the time begins that is measured, and when it ends."""
        self._from_s, self._to_s = from_s, to_s

    def add(self, ended: Sequence[Ended], now_s: float) -> None:
        """Counts calls that are over now."""
        answered = 0
        due_s = now_s - self._timeout_s
        for started, status, reply in ended:
            if status is OK and started < due_s:
                status = self._late
            if status is OK and len(reply) >= self._least:
                answered += 1
                if started >= self._from_s:
                    self._buffer.append(now_s - started)
            elif started >= self._from_s:
                self.failures.add(status if status is not OK else self._too_short(reply))
        if self._from_s <= now_s <= self._to_s:
            self.answered += answered
        self.in_time += answered
        self.seen += len(ended)
        if self.seen >= self._read_at and ended and ended[-1].started_s >= self._from_s:
            self._read_at = self.seen + _READ_ONE_OF
            self._read(ended[-1])

    def flush(self) -> None:
        """Brings the histogram up to date."""
        self.histogram.add(self._buffer)
        self._buffer.clear()

    def _too_short(self, reply: bytes) -> Status:
        return Status(
            "WRONG_REPLY", f"of {len(reply)} bytes; a right one has {self._least} at least"
        )

    def _read(self, one: Ended) -> None:
        if one.status is not OK:
            return
        try:
            reply = classifier_pb2.ClassifyResponse.FromString(one.reply)
        except DecodeError:
            self.failures.add(Status("WRONG_REPLY", "it cannot be read"))
            return
        answers = sum(result.HasField("prediction") for result in reply.results)
        if answers != self._images:
            wrong = next((each.error.message for each in reply.results if each.error.message), "")
            answered = f"{answers} of {self._images} images have an answer"
            self.failures.add(Status("WRONG_REPLY", f"{answered}: {wrong}" if wrong else answered))
        self.server.add(reply.timings)
