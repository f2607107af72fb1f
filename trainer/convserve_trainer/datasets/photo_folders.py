"""Folders of photographs: a subfolder a class, its files directly in it, or in folders within it.

Either DIR/train and DIR/validation with the same classes, or one folder of class folders, whose
validation part is chosen by the content of each file, so that copies of a picture never straddle.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convserve_imaging.folder_names import class_name, is_passed_over
from convserve_trainer.datasets import parts as data_parts
from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.parts import TEST, TRAIN, VALIDATION
from convserve_trainer.datasets.photo_list import Photo, PhotoFiles, PhotoTable, labels_of
from convserve_trainer.datasets.photo_methods import JPEG_SUFFIXES
from convserve_trainer.datasets.skipped import SkippedEntry, is_other_picture, shown
from convserve_trainer.errors import DataError, MissingDataError, UsageError


@dataclass(frozen=True)
class Choice:
    """Which files of class folders are pictures.

    Attributes:
        suffixes: of their names, in lower case.
        subfolders: whether those in folders within a class count for the class.
    """

    suffixes: tuple[str, ...] = JPEG_SUFFIXES
    subfolders: bool = False

    def is_picture(self, entry: "_Entry") -> bool:
        """Returns whether it is one by its name."""
        # A broken link is a picture that cannot be read: it is counted, not passed over.
        name = entry.below.rpartition("/")[2]
        named = not is_passed_over(name) and Path(name).suffix.lower() in self.suffixes
        return named and not entry.is_folder


JPEGS = Choice()


class _Entry(NamedTuple):
    """What is in the folder of a class.

    Attributes:
        below: its path below that folder.
        is_folder: or a link to one.
    """

    below: str
    is_folder: bool


@dataclass(frozen=True)
class ClassFolders:
    """What is in a folder of class folders.

    Attributes:
        labels: names of the class folders, in NFC, sorted.
        photos: of all classes, sorted by class and name; one or more of each class.
        skipped: everything else in folders.
        unlabelled: rows of a list that name no class.
    """

    labels: tuple[str, ...]
    photos: Sequence[Photo]
    skipped: tuple[SkippedEntry, ...] = ()
    unlabelled: tuple[Content, ...] = ()

    @property
    def several(self) -> bool:
        """Whether pictures have several labels."""
        return labels_of(self.photos).ndim == 2


def find(
    folder: Path, split: float | None, choice: Choice = JPEGS
) -> tuple[ClassFolders, ClassFolders | None]:
    """Returns what there is to train on and, where that has a folder of its own, to validate on.

    Args:
        folder: of the data.
        split: share of one folder of class folders that will be held out; None for two folders.
        choice: of the files.

    Raises:
        MissingDataError: the folder is not there.
        DataError: a folder is empty, or there are fewer than two classes.
        UsageError: `split` where there are two folders already, or none where there is one.
    """
    if not folder.is_dir():
        raise MissingDataError(f"no folder {shown(folder)}")
    parts = data_parts.folders(folder)
    if split is not None and TRAIN in parts and VALIDATION in parts:
        raise UsageError(
            f"{shown(folder)} has {TRAIN} and {VALIDATION} already: leave out --validation-split"
        )
    if split is not None:
        return classes(_whole(folder), choice), None
    if len({TRAIN, VALIDATION} & parts.keys()) == 1:
        [there] = {TRAIN, VALIDATION} & parts.keys()
        [other] = {TRAIN, VALIDATION} - {there}
        raise DataError(
            f"{shown(folder)} has {there} but no {other}; add it, or hold out a share of "
            f"{shown(parts[there])} with --validation-split"
        )
    if TRAIN not in parts:
        raise UsageError(
            f"{shown(folder)} has no {TRAIN} and {VALIDATION}; if its subfolders are the classes, "
            "add --validation-split SHARE"
        )
    train, validation = (classes(parts[name], choice) for name in (TRAIN, VALIDATION))
    if train.labels != validation.labels:
        raise DataError(
            f"{shown(folder)}: {TRAIN} has the classes {', '.join(train.labels)}, "
            f"{VALIDATION} has {', '.join(validation.labels)}"
        )
    return train, validation


def part(folder: Path, split: float | None, name: str | None) -> Path:
    """Returns the folder of class folders that is held out, or of which a share is.

    Args:
        folder: of the data.
        split: share that is held out; None for a part of its own.
        name: of the part; None for validation, or else test, or else all.

    Raises:
        DataError: there is no such part.
    """
    if split is not None:
        return _whole(folder)
    parts = data_parts.folders(folder) if folder.is_dir() else {}
    if name is None:
        others = {TEST: parts[TEST]} if {TRAIN, TEST} <= parts.keys() else {}
        return parts.get(VALIDATION) or others.get(TEST) or folder
    if name not in parts:
        raise DataError(
            f"{shown(folder)}: expected a folder {name}, got {', '.join(parts) or 'no parts'}"
        )
    return parts[name]


def _whole(folder: Path) -> Path:
    """Returns the folder of which a share is held out: train, where the rest is for tests."""
    parts = data_parts.folders(folder) if folder.is_dir() else {}
    return parts[TRAIN] if {TRAIN, TEST} <= parts.keys() else folder


def classes(folder: Path, choice: Choice = JPEGS) -> ClassFolders:
    """Returns what is in a folder of class folders.

    Args:
        folder: of them.
        choice: of the files.

    Raises:
        DataError: it has fewer than two class folders, two of one name, or one without a picture
            or a proper name.
    """
    entries = sorted(os.listdir(folder))
    folders = sorted(
        (class_name(name), name)
        for name in entries
        if not is_passed_over(name) and (folder / name).is_dir()
    )
    labels = tuple(label for label, _ in folders)
    if not labels:
        raise DataError(
            f"{shown(folder)} has no class folders: a subfolder a class, its pictures in it"
        )
    if len(labels) == 1:
        raise DataError(
            f"{shown(folder)} has one class only, {shown(Path(labels[0]))}: two or more are needed"
        )
    nameless = [label for label in labels if not label.isprintable()]
    if nameless:
        raise DataError(
            f"class folder: expected a name of printable text, got {shown(folder / nameless[0])}"
        )
    twice = [label for label, other in pairwise(labels) if label == other]
    if twice:
        raise DataError(
            f"{shown(folder)} has two folders {twice[0]} that look the same, one with its accents "
            "as characters of their own (NFD, from macOS): move the files of one into the other"
        )
    classes = {name for _, name in folders}
    skipped = [_skipped_entry(folder / name) for name in entries if name not in classes]

    def listed() -> Iterator[tuple[int, str]]:
        for number, (_, name) in enumerate(folders):
            inside = _entries(folder / name, choice)
            chosen = [entry.below for entry in inside if choice.is_picture(entry)]
            if not chosen:
                raise DataError(_no_picture(folder / name, inside, choice))
            skipped.extend(
                _skipped_entry(folder / name / entry.below)
                for entry in inside
                if not choice.is_picture(entry)
            )
            for below in chosen:
                yield number, below

    photos = PhotoFiles([folder / name for _, name in folders], labels, listed())
    return ClassFolders(labels, photos, tuple(skipped))


def split(photos: Sequence[Photo], share: float) -> tuple[PhotoTable, PhotoTable]:
    """Returns photographs to train on, and a share to hold out, chosen by the files' content."""
    table = PhotoTable.of(photos)
    fractions = table.sha256[:, :8].copy().view(">u8").ravel().astype(np.float64) / 2**64
    return table.take(fractions >= share), table.take(fractions < share)


def limited(photos: Sequence[Photo], limit: int | None) -> PhotoTable:
    """Returns the first `limit` photographs, the first of each class before the second of any.

    Where they have several labels, those with the same ones are a class.
    """
    table = PhotoTable.of(photos)
    classes = table.labels
    if classes.ndim == 2:
        classes = np.unique(classes, axis=0, return_inverse=True)[1].ravel()
    by_class = np.argsort(classes, kind="stable")
    begins = np.searchsorted(classes[by_class], classes)
    ranks = np.empty(len(table), np.int64)  # within the class
    ranks[by_class] = np.arange(len(table))
    ranks -= begins
    return table.take(np.sort(np.lexsort((classes, ranks))[:limit]))


def digest(train: Iterable[Photo], held_out: Iterable[Photo], labels: Sequence[str]) -> str:
    """Returns the SHA-256, hexadecimal, over part, name, class and content of each, sorted."""
    rows = [
        # A zero byte cannot be in a name, so that no two lists give the same bytes.
        os.fsencode("\0".join((f"{part}/{photo.name}", _class_of(photo, labels), photo.sha256, "")))
        for part, photos in ((TRAIN, train), (VALIDATION, held_out))
        for photo in photos
    ]
    rows.sort()
    whole = hashlib.sha256()
    for row in rows:
        whole.update(row)
    return whole.hexdigest()


def _class_of(photo: Photo, labels: Sequence[str]) -> str:
    """Returns the name of a photograph's class; of several labels all of them, a line each."""
    if photo.labels is None:
        return labels[photo.label]
    # No label has a line break, so that no class has such a name.
    return "\n".join(["", *(labels[number] for number in photo.labels)])


def _entries(folder: Path, choice: Choice) -> list[_Entry]:
    """Returns what is in the folder of a class, with what is in folders within it if chosen.

    A folder is entered once, however many links lead to it.
    """
    found: list[_Entry] = []
    entered: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        top = waiting.pop()
        status = (folder / top).stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder / top) as inside:
            for each in inside:
                entry = _Entry(f"{top}{each.name}", _is_folder(each))
                if choice.subfolders and entry.is_folder and not is_passed_over(each.name):
                    waiting.append(f"{entry.below}/")
                else:
                    found.append(entry)
    return sorted(found, key=lambda entry: entry.below.split("/"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say: reading it tells why it is none
        return False


def _skipped_entry(path: Path) -> SkippedEntry:
    if is_passed_over(path.name):
        return SkippedEntry(path, "system")
    return SkippedEntry(path, "folder" if path.is_dir() else "file")


def _no_picture(folder: Path, entries: Sequence[_Entry], choice: Choice) -> str:
    if not entries:
        return f"the class folder {shown(folder)} is empty"
    count = len(entries)
    paths = [Path(entry.below) for entry in entries]
    deeper = any(
        entry.is_folder and not is_passed_over(path.name)
        for entry, path in zip(entries, paths, strict=True)
    )
    others = any(is_other_picture(path, choice.suffixes) for path in paths)
    what = "JPEG" if choice.suffixes == JPEG_SUFFIXES else "picture"
    return (
        f"the class folder {shown(folder)} holds no {what} ({', '.join(choice.suffixes)}), "
        f"only {count:,} other {'entry' if count == 1 else 'entries'}"
        + ("; PNG, WebP and GIF are read with --formats all" if others else "")
        + (
            "; pictures lie directly in it, not in folders within it (or add --subfolders use)"
            if deeper
            else ""
        )
    )
