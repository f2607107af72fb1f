"""Numbers that several processes write and any of them reads: one file that all have mapped.

Each process that counts has a slot of its own, which outlives it: its successor goes on from there.
A slot has rows, one for each model version, and each row says by itself which one it is. What a row
counts is a list of fields; see shared_statistics.py.

There is no lock between processes. A number is one aligned word, which one process alone writes and
the processor stores at once, so who reads it sees it before or after. Numbers of a row may be of
different instants, by as much as one batch.
"""

import itertools
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_WORD = 8
#: Of a name, bytes; see convserve_bundle.contract.
_MAX_NAME = 64
#: Of a row before its fields: whether it is in use, the version, the name.
_USED, _VERSION, _NAME = 0, 1, 2
_KEY_WORDS = 2 + _MAX_NAME // _WORD

#: Rows of a slot for model versions; those beyond share one more.
ROWS = 512
#: Who that one is: no model can have this name.
OTHER = ("(other)", 0)


@dataclass(frozen=True)
class Field:
    """Numbers of a row.

    Attributes:
        name: of the field.
        words: how many numbers.
        seconds: whether they are sums of seconds, float64; else they are counts, uint64.
    """

    name: str
    words: int = 1
    seconds: bool = False


class Layout:
    """Where the fields of a row are.

    Args:
        fields: in their order, with different names.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        ends = itertools.accumulate((field.words for field in fields), initial=0)
        self._at = {field.name: at for field, at in zip(fields, ends, strict=False)}
        self.words = sum(field.words for field in fields)

    def at(self, name: str) -> int:
        """Returns the index of a field's first number in a row."""
        return self._at[name]


class Row:
    """One row of a slot.

    Args:
        words: the memory of the row, its key included.

    Attributes:
        counts: its numbers as uint64, by Layout.at().
        seconds: the same as float64.
    """

    __slots__ = ("_key", "_name", "counts", "seconds")

    def __init__(self, words: memoryview) -> None:
        key, fields = words[: _KEY_WORDS * _WORD], words[_KEY_WORDS * _WORD :]
        self._key: memoryview[int] = key.cast("Q")
        self._name = key[_NAME * _WORD :]
        self.counts: memoryview[int] = fields.cast("Q")
        self.seconds: memoryview[float] = fields.cast("d")

    @property
    def used(self) -> bool:
        """Whether it is anyone's."""
        return bool(self._key[_USED])

    @property
    def key(self) -> tuple[str, int]:
        """The model and the version that it is about."""
        return bytes(self._name).rstrip(b"\0").decode(), self._key[_VERSION]

    def begin(self, name: str, version: int) -> None:
        """Makes it the row of a version; its numbers are zero."""
        self._name[:] = name.encode().ljust(_MAX_NAME, b"\0")
        self._key[_VERSION] = version
        # Last: who sees it sees the key.
        self._key[_USED] = 1


class Slab:
    """All slots.

    Args:
        memory: of slab_bytes(); zeros, or what others have written.
        layout: of the rows.
    """

    def __init__(self, memory: mmap.mmap, layout: Layout) -> None:
        self._memory = memoryview(memory)
        self._row_bytes = _row_bytes(layout)
        self.slots = len(memory) // _slot_bytes(layout)

    def row(self, slot: int, index: int) -> Row:
        """Returns a row of a slot; that with the index ROWS is for OTHER."""
        at = (slot * (ROWS + 1) + index) * self._row_bytes
        return Row(self._memory[at : at + self._row_bytes])

    def rows(self, slot: int) -> Iterator[Row]:
        """Yields the rows of a slot that are in use."""
        for index in range(ROWS):
            row = self.row(slot, index)
            if not row.used:
                break
            yield row
        row = self.row(slot, ROWS)
        if row.used:
            yield row


def slab_bytes(slots: int, layout: Layout) -> int:
    """Returns the size of a slab; memory is needed only for the rows that are in use."""
    return slots * _slot_bytes(layout)


def _slot_bytes(layout: Layout) -> int:
    return (ROWS + 1) * _row_bytes(layout)


def _row_bytes(layout: Layout) -> int:
    return (_KEY_WORDS + layout.words) * _WORD
