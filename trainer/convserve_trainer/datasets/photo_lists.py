"""Photographs that a list names, whatever form the list has: its rows become parts of a data set.

A format of lists is a module with the functions of `Lister`; what a training, `evaluate`,
`check-data` and `drift` need of them is made here and in `photos`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convserve_imaging.folder_names import class_name
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.datasets import label_sets, parts, photos
from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.listed_photos import Columns, ListedPhotos
from convserve_trainer.datasets.parts import TEST, TRAIN, VALIDATION
from convserve_trainer.datasets.photo_folders import ClassFolders
from convserve_trainer.datasets.pictures import Data, Pictures, Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.wording import counted

WHOLE = "all"
"""Name of the part where the data are not divided."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of a list.

    Attributes:
        where: it is, for messages: "set.csv, line 3".
        content: the picture's file, or the row.
        name: of the picture, the same wherever the list lies; no two rows have the same.
        labels: of the picture; None where the row names none.
        part: that it belongs to, as the list calls it; None where the list names no parts.
        several: whether rows have a list of labels, any number of them.
    """

    where: str
    content: Content
    name: str
    labels: tuple[str, ...] | None
    part: str | None
    several: bool = False


class Lister(Protocol):
    """What the module of a format has that lists photographs."""

    def match(self, folder: Path) -> bool:
        """Returns whether a folder, or a file, is such a list; looks at names alone."""

    def rows(self, source: Source, say: Say) -> Iterator[Listed]:
        """Yields all rows, in the order of the list.

        Args:
            source: which list, and names of its columns.
            say: takes lines on what is done.

        Raises:
            DataError: the list is missing or damaged, or lacks a column.
        """


@dataclass(frozen=True)
class ListReader:
    """Data that are listed, as the data of a training; a `registry.Reader`.

    Attributes:
        lister: of the format.
    """

    lister: Lister

    def match(self, folder: Path) -> bool:
        """See `Lister`."""
        return self.lister.match(folder)

    def load(self, source: Source, limit: int | None, say: Say) -> Data:
        """Returns photographs to train on, and those held out; see `photos.of_found`.

        Raises:
            DataError: the list is not as it should be, or too much of it cannot be read.
            UsageError: `source.split` does not suit the list, or `limit` is below the classes.
        """
        train, validation = self._divided(source, say)
        return photos.of_found(source, train, validation, limit, say)

    def held_out(self, source: Source, manifest: Manifest, say: Say) -> Pictures:
        """Returns held-out photographs for a bundle, of the part that `source` names.

        Where it names none: the share of the split, or validation, or test, or all of a list
        without parts.

        Raises:
            DataError: the list is not as it should be, has other classes than the bundle or no
                such part, or too much of it cannot be read.
            UsageError: a split does not suit the list.
        """
        if source.split is not None:
            found = self._divided(source, say)[0]
        else:
            listed = self.parts(source, say)
            names = (VALIDATION, TEST, WHOLE) if source.part is None else (source.part,)
            there = [name for name in names if name in listed]
            if not there:
                raise DataError(
                    f"{shown(_path(source))}: expected a part {' or '.join(names[:2])}, got "
                    f"{', '.join(listed)}"
                )
            found = listed[there[0]]
        return photos.held_out_of(source, found, manifest, say)

    def parts(self, source: Source, say: Say) -> Mapping[str, ClassFolders]:
        """Returns the photographs of each part; all under WHOLE where the list names no parts.

        Raises:
            DataError: the list is not as it should be.
        """
        path = _path(source)
        found: dict[str, _Part] = {}
        named: dict[str, str] = {}
        for row in self.lister.rows(source, say):
            if isinstance(row.content, Path):  # rows of tables have names of their own
                if row.name in named:
                    name = shown(Path(row.name))
                    raise DataError(f"{row.where}: {name} is listed twice, see {named[row.name]}")
                named[row.name] = row.where
            found.setdefault(_part(row), _Part()).add(row)
        if not found:
            raise DataError(f"{shown(path)} lists no picture")
        if WHOLE in found and len(found) > 1:
            raise DataError(f"{shown(path)}: split: expected one in every row, got none in some")
        if len({part.several for part in found.values()} - {None}) > 1:
            raise DataError(f"{shown(path)}: labels: expected a list in every row, or in none")
        labels = sorted({label for part in found.values() for label in part.labels})
        if len(labels) < 2:
            got = ", ".join(labels) or "no label"
            raise DataError(f"{shown(path)} has one class only, {got}: expected two")
        return {
            name: found[name].classes(labels) for name in (*parts.PARTS, WHOLE) if name in found
        }

    def _divided(self, source: Source, say: Say) -> tuple[ClassFolders, ClassFolders | None]:
        """Returns what to train on, and what is held out unless that is a share of the former."""
        path, found = _path(source), self.parts(source, say)
        if WHOLE in found:
            if source.split is None:
                raise UsageError(
                    f"{shown(path)} has no parts {TRAIN} and {VALIDATION}, and no column split: "
                    "add --validation-split SHARE, or the column"
                )
            return found[WHOLE], None
        if TRAIN not in found:
            raise DataError(f"{shown(path)}: expected a part {TRAIN}, got {', '.join(found)}")
        train, validation = found[TRAIN], found.get(VALIDATION)
        if source.split is not None and validation:
            raise UsageError(
                f"{shown(path)} has a part {VALIDATION} already: leave out --validation-split"
            )
        if source.split is None and not validation:
            raise UsageError(
                f"{shown(path)} has {', '.join(found)}, but no {VALIDATION}: add it, or hold out "
                f"a share of {TRAIN} with --validation-split"
            )
        several = validation and (train.several or validation.several)
        if validation and not several and train.labels != validation.labels:
            raise DataError(
                f"{shown(path)}: {TRAIN} has the classes {', '.join(train.labels)}, {VALIDATION} "
                f"has {', '.join(validation.labels) or 'none'}"
            )
        if TEST in found:
            count = counted(len(found[TEST].photos), "picture")
            say(f"not used: {count} of {TEST} (evaluate --part {TEST})")
        return train, validation


class _Part:
    """Collects the rows of a part."""

    def __init__(self) -> None:
        self._listed = Columns()
        self._unlabelled: list[Content] = []
        self._kinds: dict[tuple[str, ...], int] = {}  # numbers in the order in which they came
        self.several: bool | None = None

    @property
    def labels(self) -> set[str]:
        """All that rows have."""
        return {label for kind in self._kinds for label in kind}

    def add(self, row: Listed) -> None:
        """Adds a row.

        Raises:
            DataError: a label is not printable text, or there are several where others have one.
        """
        if row.labels is None:
            self._unlabelled.append(row.content)
            return
        if self.several is None:
            self.several = row.several
        if self.several is not row.several:
            raise DataError(f"{row.where}: labels: expected a list in every row, or in none")
        kind = label_sets.checked(row.labels, f"{row.where}: labels") if row.several else _one(row)
        self._listed.add(self._kinds.setdefault(kind, len(self._kinds)), row.name, row.content)

    def classes(self, labels: Sequence[str]) -> ClassFolders:
        """Returns all of them, sorted by class and name; where they have several labels by name.

        Args:
            labels: of all parts; those of photographs that have several.
        """
        listed, unlabelled = self._listed, tuple(self._unlabelled)
        if self.several:
            numbers = {label: number for number, label in enumerate(labels)}
            sets = [[numbers[label] for label in kind] for kind in self._kinds]
            rows = label_sets.matrix(sets, len(labels))
            order = sorted(range(len(listed)), key=listed.name)
            return ClassFolders(tuple(labels), ListedPhotos(listed, order, rows), (), unlabelled)
        own, names = tuple(sorted(self.labels)), [label for (label,) in self._kinds]
        kinds = np.array([own.index(name) for name in names], np.int64)
        order = sorted(range(len(listed)), key=lambda n: (kinds[listed.labels[n]], listed.name(n)))
        return ClassFolders(own, ListedPhotos(listed, order, kinds, names), (), unlabelled)


def _one(row: Listed) -> tuple[str]:
    (label,) = map(class_name, row.labels or ())
    if not label or not label.isprintable():
        raise DataError(f"{row.where}: label: expected printable text, got {label!r}")
    return (label,)


def _part(row: Listed) -> str:
    if row.part is None:
        return WHOLE
    part = parts.named(row.part)
    if part is None:
        raise DataError(f"{row.where}: split: expected {', '.join(parts.PARTS)}, got {row.part!r}")
    return part


def _path(source: Source) -> Path:
    assert source.folder is not None, "the format was found by its name"
    return source.folder
