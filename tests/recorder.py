"""What a stand-in was given, for a test to look at; memory stays bounded whatever is sent."""

from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Recorder(Sequence[T]):
    """The first entries, and the number of all.

    Raises:
        AssertionError: An entry is asked for that was not kept.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._kept: list[T] = []
        self._count = 0

    def append(self, entry: T) -> None:
        """Count an entry, and keep it if there is space."""
        self._count += 1
        if len(self._kept) < self._most:
            self._kept.append(entry)

    def clear(self) -> None:
        """Forget all entries."""
        self._kept.clear()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._all()[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return self._all() == other

    def __repr__(self) -> str:
        return f"{self._count} entries, the first of them {self._kept[:5]}"

    def _all(self) -> list[T]:
        assert self._count == len(self._kept), (
            f"{self._count} came, the first {self._most} are kept"
        )
        return self._kept
