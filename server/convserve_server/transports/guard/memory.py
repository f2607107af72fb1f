"""How much memory of the workers the calls of clients hold."""

from typing import Protocol

#: Calls that a connection loses before another one may hold most.
_AT_A_TIME = 64


class Holder(Protocol):
    """A connection whose requests hold memory.

    Attributes:
        held: bytes.
    """

    held: int

    def refuse_largest(self) -> bool:
        """Ends the call that holds most, or the newest; returns False if there is none."""


class RequestMemory:
    """What all connections of a process hold together.

    Where that is too much, the connection that holds most loses calls: one that has few of them is
    never the one.

    Args:
        most: bytes, over all connections.
        most_of_one: bytes of one connection.

    Attributes:
        held: bytes, over all connections.
        holders: the connections.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self.held = 0
        self.holders: set[Holder] = set()

    def add(self, holder: Holder, size: int) -> None:
        """Notes that a connection holds so many bytes more, or less if it is negative."""
        holder.held += size
        self.held += size
        if size <= 0:
            return
        while holder.held > self._most_of_one and holder.refuse_largest():
            pass
        while self.held > self._most:
            largest = max(self.holders, key=lambda one: one.held)
            for _ in range(_AT_A_TIME):
                if self.held <= self._most or not largest.refuse_largest():
                    break
            else:
                continue
            break
