"""Folders of photographs: a subfolder a class, its files directly in it, or in folders within it.

Either DIR/train and DIR/validation with the same classes, or one folder of class folders, whose
validation part is chosen by the content of each file, so that copies of a picture never straddle.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from convserve_imaging.folder_names import class_name, is_passed_over
from convserve_trainer.datasets.photo_methods import JPEG_SUFFIXES
from convserve_trainer.datasets.skipped import SkippedEntry, is_other_picture, shown
from convserve_trainer.errors import DataError, MissingDataError, UsageError

TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True)
class Photo:
    """A file that should be a picture.

    Attributes:
        path: of the file.
        name: its path below the folder of class folders, "cats/1.jpg".
        label: number of its class; -1 where pictures have several labels.
        sha256: of its content, hexadecimal; empty until it is read.
        size: height and width that its header states, upright; zeros until it is read, and where
            it has no header that can be read.
        labels: numbers of its labels, ascending, perhaps none, where pictures have several; else
            None.
    """

    path: Path
    name: str
    label: int
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Choice:
    """Which files of class folders are pictures.

    Attributes:
        suffixes: of their names, in lower case.
        subfolders: whether those in folders within a class count for the class.
    """

    suffixes: tuple[str, ...] = JPEG_SUFFIXES
    subfolders: bool = False

    def is_picture(self, path: Path) -> bool:
        """Returns whether it is one by its name."""
        # A broken link is a picture that cannot be read: it is counted, not passed over.
        named = not is_passed_over(path.name) and path.suffix.lower() in self.suffixes
        return named and not path.is_dir()


JPEGS = Choice()


@dataclass(frozen=True)
class ClassFolders:
    """What is in a folder of class folders.

    Attributes:
        labels: names of the class folders, in NFC, sorted.
        photos: of all classes, sorted by class and name; one or more of each class.
        skipped: everything else.
    """

    labels: tuple[str, ...]
    photos: tuple[Photo, ...]
    skipped: tuple[SkippedEntry, ...]

    @property
    def several(self) -> bool:
        """Whether pictures have several labels."""
        return any(photo.labels is not None for photo in self.photos)


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
    parts = [name for name in (TRAIN, VALIDATION) if (folder / name).is_dir()]
    if split is not None and len(parts) == 2:
        raise UsageError(
            f"{shown(folder)} has {TRAIN} and {VALIDATION} already: leave out --validation-split"
        )
    if split is not None:
        return classes(folder, choice), None
    if len(parts) == 1:
        [other] = {TRAIN, VALIDATION} - set(parts)
        raise DataError(
            f"{shown(folder)} has {parts[0]} but no {other}; add it, or hold out a share of "
            f"{shown(folder / parts[0])} with --validation-split"
        )
    if not parts:
        raise UsageError(
            f"{shown(folder)} has no {TRAIN} and {VALIDATION}; if its subfolders are the classes, "
            "add --validation-split SHARE"
        )
    train, validation = (classes(folder / name, choice) for name in parts)
    if train.labels != validation.labels:
        raise DataError(
            f"{shown(folder)}: {TRAIN} has the classes {', '.join(train.labels)}, "
            f"{VALIDATION} has {', '.join(validation.labels)}"
        )
    return train, validation


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
    photos = []
    classes = {name for _, name in folders}
    skipped = [_skipped_entry(folder / name) for name in entries if name not in classes]
    for number, (label, name) in enumerate(folders):
        inside = _entries(folder / name, choice)
        chosen = [path for path in inside if choice.is_picture(path)]
        if not chosen:
            raise DataError(_no_picture(folder / name, inside, choice))
        skipped += [_skipped_entry(path) for path in inside if not choice.is_picture(path)]
        for path in chosen:
            below = path.relative_to(folder / name).as_posix()
            photos.append(Photo(path, f"{label}/{below}", number))
    return ClassFolders(labels, tuple(photos), tuple(skipped))


def split(photos: Sequence[Photo], share: float) -> tuple[list[Photo], list[Photo]]:
    """Returns photographs to train on, and a share to hold out, chosen by the files' content."""
    parts: tuple[list[Photo], list[Photo]] = [], []
    for photo in photos:
        fraction = int(photo.sha256[:16], 16) / 2**64
        parts[fraction < share].append(photo)
    return parts


def limited(photos: Sequence[Photo], limit: int | None) -> list[Photo]:
    """Returns the first `limit` photographs, the first of each class before the second of any.

    Where they have several labels, those with the same ones are a class.
    """
    seen: dict[tuple[int, ...], int] = {}
    ranks = []
    for photo in photos:
        kind = (photo.label, *(photo.labels or ()))
        ranks.append((seen.setdefault(kind, 0), kind))
        seen[kind] += 1
    first = sorted(range(len(photos)), key=ranks.__getitem__)[:limit]
    return [photos[number] for number in sorted(first)]


def digest(train: Iterable[Photo], held_out: Iterable[Photo], labels: Sequence[str]) -> str:
    """Returns the SHA-256, hexadecimal, over part, name, class and content of each, sorted."""
    rows = [
        # A zero byte cannot be in a name, so that no two lists give the same bytes.
        os.fsencode("\0".join((f"{part}/{photo.name}", _class_of(photo, labels), photo.sha256, "")))
        for part, photos in ((TRAIN, train), (VALIDATION, held_out))
        for photo in photos
    ]
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def _class_of(photo: Photo, labels: Sequence[str]) -> str:
    """Returns the name of a photograph's class; of several labels all of them, a line each."""
    if photo.labels is None:
        return labels[photo.label]
    # No label has a line break, so that no class has such a name.
    return "\n".join(["", *(labels[number] for number in photo.labels)])


def _entries(folder: Path, choice: Choice) -> list[Path]:
    """Returns what is in the folder of a class, with what is in folders within it if chosen.

    A folder is entered once, however many links lead to it.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        top = waiting.pop()
        status = top.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for path in (top / name for name in sorted(os.listdir(top))):
            if choice.subfolders and path.is_dir() and not is_passed_over(path.name):
                waiting.append(path)
            else:
                found.append(path)
    return sorted(found) if choice.subfolders else found


def _skipped_entry(path: Path) -> SkippedEntry:
    if is_passed_over(path.name):
        return SkippedEntry(path, "system")
    return SkippedEntry(path, "folder" if path.is_dir() else "file")


def _no_picture(folder: Path, entries: Sequence[Path], choice: Choice) -> str:
    if not entries:
        return f"the class folder {shown(folder)} is empty"
    count = len(entries)
    deeper = any(entry.is_dir() and not is_passed_over(entry.name) for entry in entries)
    others = any(is_other_picture(entry, choice.suffixes) for entry in entries)
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
