"""How many bytes of requests that are not whole yet are in the memory of the workers."""

from typing import Protocol


class Holder(Protocol):
    """A connection whose requests hold memory.

    Attributes:
        held: bytes of its requests that are not whole yet.
    """

    held: int

    def refuse_largest(self) -> None:
        """Refuses the largest of its requests that are not whole yet."""


class RequestMemory:
    """What all connections of a process hold together.

    Where that is too much, the connection that holds most loses its largest request: a caller of
    small requests is never the one.

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
        if size > 0:
            if holder.held > self._most_of_one:
                holder.refuse_largest()
            if self.held > self._most:
                max(self.holders, key=lambda one: one.held).refuse_largest()
