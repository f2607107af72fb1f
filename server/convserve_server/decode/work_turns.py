"""A queue in which callers get equal shares of the time that their items cost, not of their number.

Whose next item costs much waits until the others have been given as much: many cheap items pass
one dear one, and a new caller has no advantage by being new.

Source: Golestani, "A self-clocked fair queueing scheme for broadband applications" (INFOCOM 1994).
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class WorkTurns(Generic[T]):
    """First come, first served among the items of one caller; callers by cost. Not thread-safe.

    Args:
        cost: seconds of what is next of an item; it may have several parts, taken one by one.
    """

    def __init__(self, cost: Callable[[T], float]) -> None:
        self._cost = cost
        self._queues: dict[Hashable, deque[T]] = {}
        #: When the next part of each caller would end if all were served at once, on the clock of
        #: the one in service; a number that breaks ties by arrival; the caller.
        self._ends: list[tuple[float, int, Hashable]] = []
        self._clock = 0.0
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        """Whether there is any item."""
        return bool(self._ends)

    @property
    def callers(self) -> int:
        """How many callers have items."""
        return len(self._queues)

    def append(self, caller: Hashable, item: T) -> None:
        """Add the last item of a caller."""
        queue = self._queues.setdefault(caller, deque())
        queue.append(item)
        if len(queue) == 1:
            self._line_up(caller)

    def first(self) -> T:
        """The item whose turn it is; there must be one."""
        return self._queues[self._ends[0][2]][0]

    def take(self, *, last: bool) -> None:
        """Give the next part of that item its turn.

        Args:
            last: whether nothing is left of the item then, which is removed.
        """
        self._clock, _, caller = heapq.heappop(self._ends)
        self._next(caller, gone=last)

    def drop(self) -> None:
        """Remove that item; nobody has been given time for it."""
        _, _, caller = heapq.heappop(self._ends)
        self._next(caller, gone=True)

    def _next(self, caller: Hashable, *, gone: bool) -> None:
        queue = self._queues[caller]
        if gone:
            queue.popleft()
        if queue:
            self._line_up(caller)
        else:
            del self._queues[caller]

    def _line_up(self, caller: Hashable) -> None:
        end = self._clock + self._cost(self._queues[caller][0])
        heapq.heappush(self._ends, (end, next(self._numbers), caller))
