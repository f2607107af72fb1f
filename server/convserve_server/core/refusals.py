"""The errors of calls for which there is no time, in few different texts: they may be many.

Times in them are rounded, so that what a protocol makes of an error can be kept for the next one.
"""

import math
from functools import lru_cache
from typing import NamedTuple

from convserve_server.core.errors import CannotMeetDeadline, QueueFull

#: Of the time that a call could wait for others that wait, how much may be needed when it comes.
#: The rest is for stalls of the machine: without it all that waits is late after each of them. An
#: engine that always has enough to do does no less for it.
USED = 0.5


class Forecast(NamedTuple):
    """When a request would be served, s from now.

    Attributes:
        start_s: begins its first part.
        end_s: its answer.
        own_s: its answer, if nothing else were there.
        running_s: a batch slot is free.
        queued_s: of what waits now, after that, is served before it. What comes later and is
            served before it as well is in the others only.
    """

    start_s: float
    end_s: float
    own_s: float
    running_s: float
    queued_s: float

    def needed_s(self, later_s: float = 0.0) -> float:
        """Returns the least time until its deadline with which it is accepted.

        Args:
            later_s: so long after the forecast was made.
        """
        return max(self.end_s, self.own_s + self.running_s + self.queued_s / USED) - later_s


def coarse_ms(seconds: float) -> int:
    """Returns a time in ms, at least 1, rounded up to one of few numbers.

    Of two digits, or less: within a second fewer, so that the texts with two such times are some
    hundreds, and all of them are kept.
    """
    return _coarse(math.ceil(seconds * 1000 - 1e-6))


@lru_cache(maxsize=1024)
def _coarse(ms: int) -> int:
    if ms < 10:
        return max(1, ms)
    step = tens = int(10 ** (len(str(ms)) - 1))
    first = ms // tens
    if ms > 1000:
        step = tens // 10
    elif first < 2:
        step = tens // 5
    elif first < 5:
        step = tens // 2
    return ms + -ms % step


def cannot_meet(name: str, left_s: float, needed_s: float, own_s: float) -> CannotMeetDeadline:
    """Returns the error of a call that has less time than it needs.

    Args:
        name: of the model.
        left_s: until its deadline.
        needed_s: with which it would be accepted.
        own_s: until its answer, if nothing else were there.
    """
    return CannotMeetDeadline(
        *_deadline_text(name, coarse_ms(needed_s), coarse_ms(left_s), own_s < left_s)
    )


def waits_too_long(name: str, wait_s: float, max_wait_s: float) -> QueueFull:
    """Returns the error of a call that waits, or would wait, longer than it may.

    Args:
        name: of the queue.
        wait_s: of the call.
        max_wait_s: see settings.
    """
    return QueueFull(*_wait_text(name, coarse_ms(wait_s), max_wait_s))


@lru_cache(maxsize=1024)
def _deadline_text(
    name: str, needed_ms: int, left_ms: int, possible: bool
) -> tuple[str, float | None]:
    """Returns the message, and after how many seconds to try again with a new call."""
    later_s = max(1, needed_ms - left_ms) / 1000 if possible else None
    return f"deadline: expected at least {needed_ms} ms for {name}, got {left_ms} ms", later_s


@lru_cache(maxsize=1024)
def _wait_text(name: str, wait_ms: int, max_wait_s: float) -> tuple[str, float]:
    """Returns the message, and after how many seconds to try again."""
    most_ms = max_wait_s * 1000
    message = f"the queue {name} is full: a wait of {wait_ms} ms exceeds max_wait_ms of {most_ms:g}"
    return message, max(1, wait_ms - most_ms) / 1000
