"""Photographs that a list names, in columns: about 100 bytes each, not the kilobyte of objects."""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from convserve_trainer.datasets.content import Content, TableRow
from convserve_trainer.datasets.photo_folders import Photo


class Columns:
    """Collects pictures with their names and labels.

    Attributes:
        labels: numbers of their classes, in the order in which they were added.
    """

    def __init__(self) -> None:
        self.labels = array("i")
        self._names = _Texts()
        self._paths = _Texts()  # of files; nothing for rows
        self._tables: list[tuple[Path, Path]] = []
        self._rows = array("q")  # of rows four numbers each, of files the first is -1
        self._others: dict[int, Content] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, label: int, name: str, content: Content) -> None:
        """Adds a picture."""
        if isinstance(content, TableRow):
            table = content.table, content.unpacked
            if not self._tables or self._tables[-1] != table:  # rows of a table follow each other
                self._tables.append(table)
            last = len(self._tables) - 1
            self._rows.extend((last, content.row, content.start, content.length))
        else:
            self._rows.extend((-1, 0, 0, 0))
            if not isinstance(content, Path):
                self._others[len(self)] = content
        self._paths.add(os.fspath(content) if isinstance(content, Path) else "")
        self._names.add(name)
        self.labels.append(label)

    def name(self, number: int) -> str:
        """Returns the name of one."""
        return self._names[number]

    def content(self, number: int) -> Content:
        """Returns what has the bytes of one."""
        table, row, start, length = self._rows[4 * number : 4 * number + 4]
        if table >= 0:
            path, unpacked = self._tables[table]
            return TableRow(path, row, unpacked, start, length)
        return self._others.get(number) or Path(self._paths[number])


class ListedPhotos(Sequence[Photo]):
    """Photographs of several classes, each made when it is asked for.

    Args:
        columns: of them.
        classes: names of the classes, by the numbers that `columns` has.
        order: numbers in `columns`, in the order of the photographs.
        numbers: of the classes, by those that `columns` has.
    """

    def __init__(
        self,
        columns: Columns,
        classes: Sequence[str],
        order: Sequence[int],
        numbers: Sequence[int],
    ) -> None:
        self._columns, self._classes = columns, tuple(classes)
        self._order, self._numbers = array("q", order), tuple(numbers)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> Photo: ...
    @overload
    def __getitem__(self, at: slice) -> list[Photo]: ...
    def __getitem__(self, at: int | slice) -> Photo | list[Photo]:
        """Makes them."""
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        number = self._order[at]
        label = self._columns.labels[number]
        name = f"{self._classes[label]}/{self._columns.name(number)}"
        return Photo(self._columns.content(number), name, self._numbers[label])


class _Texts:
    """Texts, one after the other; names of files may have bytes that are not characters."""

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])

    def add(self, text: str) -> None:
        self._bytes += text.encode(errors="surrogateescape")
        self._ends.append(len(self._bytes))

    def __getitem__(self, number: int) -> str:
        found = self._bytes[self._ends[number] : self._ends[number + 1]]
        return found.decode(errors="surrogateescape")
