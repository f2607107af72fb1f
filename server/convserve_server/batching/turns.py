"""A queue in which callers take turns, so that who sends much does not keep the others waiting.

Source: Nagle, "On packet switches with infinite storage" (RFC 970), fair queueing: a queue for each
source, served in turn.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """First come, first served among the items of one caller; callers in turn. Not thread-safe."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether there is any item."""
        return bool(self._queues)

    def __iter__(self) -> Iterator[T]:
        """All items, caller after caller."""
        for queue in self._queues.values():
            yield from queue

    @property
    def callers(self) -> int:
        """How many callers have items."""
        return len(self._queues)

    def append(self, caller: Hashable, item: T) -> None:
        """Add the last item of a caller; a new caller has its turn after all others."""
        queue = self._queues.get(caller)
        if queue is None:
            queue = self._queues[caller] = deque()
        queue.append(item)

    def first(self) -> T:
        """The first item of the caller whose turn it is; there must be one."""
        return next(iter(self._queues.values()))[0]

    def pop(self) -> bool:
        """Remove that item; returns whether the turn passed on, since its caller has no more."""
        caller, queue = next(iter(self._queues.items()))
        queue.popleft()
        if queue:
            return False
        del self._queues[caller]
        return True

    def pass_on(self) -> None:
        """End the turn of the caller whose it is; there must be one."""
        self._queues.move_to_end(next(iter(self._queues)))

    def clear(self) -> None:
        """Forget all items."""
        self._queues.clear()
