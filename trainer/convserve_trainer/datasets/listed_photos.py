"""Photographs that a list names, in columns: about 100 bytes each, not the kilobyte of objects."""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convserve_trainer.datasets.content import Content, TableRow
from convserve_trainer.datasets.photo_list import Photo, Photos, Texts
from convserve_trainer.datasets.pictures import Labels


class Columns:
    """Collects pictures with their names and labels.

    Attributes:
        labels: numbers of their classes, or of their sets of labels, in the order in which they
            were added.
    """

    def __init__(self) -> None:
        self.labels = array("i")
        self._names = Texts()
        self._paths = Texts()  # of files; nothing for rows
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


class ListedPhotos(Photos):
    """Photographs of several classes or with several labels, each made when it is asked for.

    Args:
        columns: of them.
        order: numbers in `columns`, in the order of the photographs.
        kinds: numbers of the classes, int64 [S], by those that `columns` has; or of several labels
            the rows of 0 and 1, uint8 [S, K].
        classes: names of the classes, by the numbers that `columns` has; none of several labels.
    """

    def __init__(
        self, columns: Columns, order: Sequence[int], kinds: Labels, classes: Sequence[str] = ()
    ) -> None:
        self._columns, self._order = columns, np.array(order, np.int64)
        self._kinds, self._classes = kinds, tuple(classes)
        self.labels = kinds[np.array(columns.labels, np.int64)[self._order]]

    def __len__(self) -> int:
        return len(self._order)

    def _photo(self, number: int) -> Photo:
        at = int(self._order[number])
        content, name, kind = self._columns.content(at), self._columns.name(at), self.labels[number]
        if kind.ndim:
            return Photo(content, name, -1, labels=tuple(np.flatnonzero(kind).tolist()))
        return Photo(content, f"{self._classes[self._columns.labels[at]]}/{name}", int(kind))

    def renumbered(self, numbers: Sequence[int], count: int) -> "ListedPhotos":
        """Returns photographs with several labels that have other numbers.

        Args:
            numbers: of the labels, by those that they have here.
            count: of all labels then.
        """
        kinds = np.zeros((len(self._kinds), count), np.uint8)
        kinds[:, list(numbers)] = self._kinds
        return ListedPhotos(self._columns, self._order.tolist(), kinds)
