"""Whether a refused call is made again, and when: one rule for all calls of the library.

A server that refuses has too much to do already, so what it refused must not come back as more
load. A call is made again only where the server says when (google.rpc.RetryInfo), not before that
time, and only if that is within the call's deadline; where what waits at the server takes longer
than the call has left (CannotMeetDeadline), it is not made again. Clients that were refused
together do not come back together: each waits for longer than it must, by chance, and by more after
each try.

Calls that ended as UNAVAILABLE are first tried again by the channel (channel.py), which knows what
became of its connections. Where a proxy does that in the client's place (retry_unavailable), no
call that ended so is made again here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from convserve.deadline import Deadline
from convserve.errors import (
    CannotMeetDeadline,
    ConvserveError,
    DeadlineExceeded,
    ServerBusy,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from convserve.settings import Settings

# A server that says "at once" is not asked sooner.
_SHORTEST_S = 0.01

# Doublings of what is left to chance.
_MOST_DOUBLINGS = 3


class Tries:
    """The tries of one call: counts them, and says how long to wait before another one."""

    def __init__(
        self,
        deadline: Deadline,
        most: int,
        chance: Callable[[], float] = random.random,
        *,
        retry_unavailable: bool = True,
    ) -> None:
        """Starts before the first try.

        Args:
            deadline: That of the call.
            most: Of the tries, the first one counted.
            chance: Returns a number from 0 to below 1.
            retry_unavailable: Whether one that ended as UNAVAILABLE is made again.
        """
        self._kinds = (ServerBusy, ServerUnavailable) if retry_unavailable else (ServerBusy,)
        self._deadline = deadline
        self._most = most
        self._chance = chance
        self._made = 0
        self._refused: ServerBusy | ServerUnavailable | None = None

    @classmethod
    def of(cls, deadline: Deadline, settings: Settings) -> Tries:
        """Returns the tries that a client's settings allow."""
        return cls(deadline, settings.max_tries, retry_unavailable=settings.retry_unavailable)

    def pause_s(self, error: ConvserveError) -> float:
        """Counts a try that failed; returns the seconds until the next one.

        Args:
            error: Why it failed.

        Raises:
            ConvserveError: There is no other try; its message says how many there were.
        """
        self._made += 1
        if isinstance(error, DeadlineExceeded) and self._refused is not None:
            # What was left for the last try says little of the server; the others say more.
            raise self._ended(self._refused, ", the last one without an answer in time") from error
        after_s = error.retry_after_s
        if after_s is None or not isinstance(error, self._kinds):
            raise error
        if isinstance(error, CannotMeetDeadline) or self._made >= self._most:
            raise self._ended(error)
        self._refused = error
        doublings = min(self._made - 1, _MOST_DOUBLINGS)
        wait_s = max(after_s, _SHORTEST_S) * (1 + self._chance() * 2.0**doublings)
        left_s = self._deadline.left_s()
        if wait_s >= left_s:
            raise self._ended(error, f"; {left_s:.2g} s are left, too few for another try")
        return wait_s

    def _ended(self, error: ConvserveError, more: str = "") -> ConvserveError:
        error.extend((f"; tried {self._made} times" if self._made > 1 else "") + more)
        return error
