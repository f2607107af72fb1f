"""Numbers that several processes write and any of them reads: one file that all have mapped.

Each process that counts has a slot of its own, which outlives it: its successor goes on from there.
A slot has tables, such as one of model versions, and a table has rows, each of which says by its
key what it counts. What a row counts is a list of fields; see layouts.py.

There is no lock between processes. A number is one aligned word, which one process alone writes and
the processor stores at once, so who reads it sees it before or after. Numbers of a row may be of
different instants, by as much as one batch.
"""

import itertools
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_WORD = 8
#: Bytes of a row before its key: its length, 0 while the row is nobody's.
_USED_BYTES = _WORD


@dataclass(frozen=True)
class Field:
    """Numbers of a row.

    Attributes:
        name: of the field.
        words: how many numbers.
        seconds: whether they are seconds, float64; else they are counts, uint64.
        gauge: whether they say how it is now; else they only grow.
    """

    name: str
    words: int = 1
    seconds: bool = False
    gauge: bool = False


class Layout:
    """Where the fields of a row are.

    Args:
        fields: in their order, with different names.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        ends = itertools.accumulate((field.words for field in fields), initial=0)
        self._at = {field.name: at for field, at in zip(fields, ends, strict=False)}
        self.words = sum(field.words for field in fields)
        #: Where the numbers are that say how it is now.
        self.gauges = [
            at
            for field in fields
            if field.gauge
            for at in range(self._at[field.name], self._at[field.name] + field.words)
        ]

    def at(self, name: str) -> int:
        """Returns the index of a field's first number in a row."""
        return self._at[name]


@dataclass(frozen=True)
class TableLayout:
    """A table of a slot.

    Attributes:
        rows: that have keys of their own.
        others: further rows, for what finds no row of its own.
        key_bytes: longest key, bytes.
        layout: of a row.
    """

    rows: int
    others: int
    key_bytes: int
    layout: Layout

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        key_words = -(-self.key_bytes // _WORD)
        return _USED_BYTES + (key_words + self.layout.words) * _WORD

    @property
    def size(self) -> int:
        """Of the table, bytes."""
        return (self.rows + self.others) * self.row_bytes


class Row:
    """One row of a table.

    Args:
        memory: of the row, its key included.
        layout: of the numbers behind the key.

    Attributes:
        counts: its numbers as uint64, by Layout.at().
        seconds: the same as float64.
    """

    __slots__ = ("_key", "_used", "counts", "seconds")

    def __init__(self, memory: memoryview, layout: Layout) -> None:
        begin = len(memory) - layout.words * _WORD
        self._used: memoryview[int] = memory[:_USED_BYTES].cast("Q")
        self._key = memory[_USED_BYTES:begin]
        # Each number is stored at once; struct.pack_into() would write zeros first.
        self.counts: memoryview[int] = memory[begin:].cast("Q")
        self.seconds: memoryview[float] = memory[begin:].cast("d")

    @property
    def used(self) -> bool:
        """Whether it is anyone's."""
        return bool(self._used[0])

    @property
    def key(self) -> str:
        """What it is about."""
        return bytes(self._key[: self._used[0]]).decode()

    def begin(self, key: str) -> None:
        """Makes it the row of a key, which is not empty; its numbers are zero."""
        text = key.encode()
        self._key[: len(text)] = text
        # Last: who sees it sees the key.
        self._used[0] = len(text)


class Table:
    """A table of one slot.

    Args:
        memory: of the table.
        form: of the table.
    """

    def __init__(self, memory: memoryview, form: TableLayout) -> None:
        self._memory = memory
        self.form = form

    def row(self, index: int) -> Row:
        """Returns a row; those from form.rows on are for what has none of its own."""
        at = index * self.form.row_bytes
        return Row(self._memory[at : at + self.form.row_bytes], self.form.layout)

    def own(self) -> Iterator[Row]:
        """Yields the rows in use that have a key of their own."""
        return itertools.takewhile(lambda row: row.used, map(self.row, range(self.form.rows)))

    def others(self) -> Iterator[Row]:
        """Yields the other rows in use."""
        further = range(self.form.rows, self.form.rows + self.form.others)
        return itertools.takewhile(lambda row: row.used, map(self.row, further))

    def rows(self) -> Iterator[Row]:
        """Yields all rows in use."""
        return itertools.chain(self.own(), self.others())

    def clear_gauges(self) -> None:
        """Sets the numbers to 0 that say how it is now; for when the process has ended."""
        for row in self.rows():
            for at in self.form.layout.gauges:
                row.counts[at] = 0


class Slab:
    """All slots.

    Args:
        memory: of slab_bytes(); zeros, or what others have written.
        tables: of each slot, by their names.
    """

    def __init__(self, memory: mmap.mmap, tables: Mapping[str, TableLayout]) -> None:
        self._memory = memoryview(memory)
        self._tables = tables
        self._slot_bytes = slab_bytes(1, tables)
        self.slots = len(memory) // self._slot_bytes

    def table(self, slot: int, name: str) -> Table:
        """Returns a table of a slot."""
        at = slot * self._slot_bytes
        for other, form in self._tables.items():
            if other == name:
                return Table(self._memory[at : at + form.size], form)
            at += form.size
        raise KeyError(name)

    def tables(self, name: str) -> Iterator[Table]:
        """Yields the table of that name of each slot."""
        return (self.table(slot, name) for slot in range(self.slots))

    def clear_gauges(self, slot: int) -> None:
        """See Table.clear_gauges."""
        for name in self._tables:
            self.table(slot, name).clear_gauges()


def slab_bytes(slots: int, tables: Mapping[str, TableLayout]) -> int:
    """Returns the size of a slab; memory is needed only for the rows that are in use."""
    return slots * sum(form.size for form in tables.values())
