"""The folders of a picture set: DIR/train/CLASS and DIR/validation/CLASS, or DIR/CLASS alone.

Pictures lie directly in the folder of their class and are known by their suffix, as in training.
Nothing is looked for deeper, so that no link can lead in a circle.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convserve_imaging.folder_names import class_name, is_passed_over
from convserve_imaging.jpeg import SOI
from convserve_trainer.datasets.photo_folders import TRAIN, VALIDATION
from convserve_trainer.datasets.photo_methods import JPEG_SUFFIXES
from convserve_trainer.errors import UsageError

SPLITS = (TRAIN, VALIDATION)
WHOLE = "all"
"""Name of the split where DIR/CLASS is all there is."""

_JPEG = SOI + b"\xff"  # every JPEG's first marker follows at once


@dataclass(frozen=True, slots=True)
class PictureFile:
    """Where a picture lies.

    Attributes:
        split: "train", "validation" or "all".
        label: name of its class, in NFC.
        path: relative to the set's folder, with slashes.
        behind_link: whether a folder on the way, below the set's, is a link.
    """

    split: str
    label: str
    path: str
    behind_link: bool = False


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """Something that no training reads.

    Attributes:
        path: relative to the set's folder, with slashes.
        kind: "hidden" (or a system's own), "folder" (in a class), "outside" (a picture, but in no
            class) or "other".
        is_jpeg: whether it is a JPEG by its first bytes, though not by its suffix.
    """

    path: str
    kind: str
    is_jpeg: bool = False


@dataclass(frozen=True)
class Tree:
    """A picture set as it lies on the disk, everything in the order of the names.

    Attributes:
        folder: of the set.
        classes: names of the classes in each split; a split without a folder has none.
        missing: splits without a folder.
        files: of the pictures, usable or not.
        skipped: everything else.
    """

    folder: Path
    classes: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    files: tuple[PictureFile, ...]
    skipped: tuple[SkippedEntry, ...]


def read(folder: Path) -> Tree:
    """Reads the folders; opens no picture.

    Raises:
        UsageError: there is no such folder.
        OSError: a folder may not be read.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder {printable(str(folder))}")
    top = {entry.name for entry in _entries(folder) if _is_folder(entry)}
    splits = SPLITS if top.intersection(SPLITS) else (WHOLE,)
    classes: dict[str, tuple[str, ...]] = {}
    files: list[PictureFile] = []
    skipped: list[SkippedEntry] = []
    if splits == SPLITS:
        others = (entry for entry in _entries(folder) if entry.name not in SPLITS)
        skipped += [_skipped_entry(entry, entry.name, "outside") for entry in others]
    for split in splits:
        inside = "" if split == WHOLE else f"{split}/"
        where = folder / inside
        entries = list(_entries(where)) if where.is_dir() else []
        labels = [entry for entry in entries if _is_folder(entry) and not _is_hidden(entry)]
        skipped += [
            _skipped_entry(entry, f"{inside}{entry.name}", "outside")
            for entry in entries
            if entry not in labels
        ]
        classes[split] = tuple(dict.fromkeys(class_name(entry.name) for entry in labels))
        for label in labels:
            linked = where.is_symlink() or label.is_symlink()
            for entry in _entries(label):
                path = f"{inside}{label.name}/{entry.name}"
                if is_picture_name(entry.name) and not _is_folder(entry):
                    files.append(PictureFile(split, class_name(label.name), path, linked))
                else:
                    skipped.append(_skipped_entry(entry, path, "other"))
    missing = tuple(split for split in splits if split != WHOLE and split not in top)
    return Tree(folder, classes, missing, tuple(files), tuple(skipped))


def is_picture_name(name: str) -> bool:
    """Returns whether a file of this name counts as a picture."""
    return not is_passed_over(name) and os.path.splitext(name)[1].lower() in JPEG_SUFFIXES


def _entries(folder: "Path | os.DirEntry[str]") -> "Iterator[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def _is_hidden(entry: "os.DirEntry[str]") -> bool:
    return is_passed_over(entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _skipped_entry(entry: "os.DirEntry[str]", path: str, kind_of_picture: str) -> SkippedEntry:
    if _is_hidden(entry):
        return SkippedEntry(path, "hidden")
    if _is_folder(entry):
        return SkippedEntry(path, "folder")
    if is_picture_name(entry.name):
        return SkippedEntry(path, kind_of_picture)
    return SkippedEntry(path, "other", _begins_as_jpeg(entry))


def _begins_as_jpeg(entry: "os.DirEntry[str]") -> bool:
    try:
        if not entry.is_file():  # opening a pipe would wait for its writer
            return False
        with open(entry, "rb") as file:
            return file.read(len(_JPEG)) == _JPEG
    except OSError:
        return False


def printable(name: str) -> str:
    r"""Returns a name with what is not printable as a Python escape: "a\nb", "\udcff"."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in name
    )


def escaped(name: str) -> str:
    r"""Returns the same with each backslash doubled, so that the name can be had back."""
    return printable(name.replace("\\", "\\\\"))
