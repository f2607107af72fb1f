"""The folders of a picture set: DIR/train/CLASS and DIR/validation/CLASS, or DIR/CLASS alone.

Pictures lie directly in the folder of their class, or in folders within it if that is asked for,
and are known by their suffix, as in training.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from convserve_imaging.folder_names import class_name, is_passed_over
from convserve_imaging.jpeg import SOI
from convserve_trainer.datasets import parts
from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.parts import TEST, TRAIN, VALIDATION
from convserve_trainer.datasets.photo_folders import JPEGS, Choice
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
        content: a row of a table; None where it is the file at `path`.
    """

    split: str
    label: str
    path: str
    behind_link: bool = False
    content: Content | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """Something that no training reads.

    Attributes:
        path: relative to the set's folder, with slashes.
        kind: "hidden" (or a system's own), "folder" (in a class), "outside" (a picture, but in no
            class), "unlabelled" (in a list) or "other".
        is_jpeg: whether it is a JPEG by its first bytes, though not by its suffix.
    """

    path: str
    kind: str
    is_jpeg: bool = False


@dataclass(frozen=True)
class Tree:
    """A picture set as it lies on the disk, everything in the order of the names.

    Attributes:
        folder: of the set; or the file that lists it.
        classes: names of the classes in each split; a split without a folder has none.
        missing: splits without a folder, and without another one that may do.
        files: of the pictures, usable or not.
        skipped: everything else.
        listed: whether a list says what belongs to it, so that no file can be moved away.
        choice: of the files.
    """

    folder: Path
    classes: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    files: tuple[PictureFile, ...]
    skipped: tuple[SkippedEntry, ...]
    listed: bool = False
    choice: Choice = JPEGS

    def content(self, file: PictureFile) -> Content:
        """Returns what has the bytes of a picture."""
        return file.content or self.folder / file.path


def read(folder: Path, choice: Choice = JPEGS) -> Tree:
    """Reads the folders; opens no picture.

    Args:
        folder: of the set.
        choice: of the files.

    Raises:
        UsageError: there is no such folder.
        OSError: a folder may not be read.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder {printable(str(folder))}")
    top = parts.folders(folder)
    splits: tuple[str, ...] = (WHOLE,)
    if top.keys() & set(SPLITS):
        # With train and test a share of train can be held out.
        splits = tuple(top) if {TRAIN, TEST} <= top.keys() else SPLITS
    classes: dict[str, tuple[str, ...]] = {}
    files: list[PictureFile] = []
    skipped: list[SkippedEntry] = []
    if splits != (WHOLE,):
        known = {path.name for path in top.values()}
        others = (entry for entry in _entries(folder) if entry.name not in known)
        skipped += [_skipped_entry(entry, entry.name, "outside", choice) for entry in others]
    for split in splits:
        inside = "" if split == WHOLE else f"{top[split].name if split in top else split}/"
        where = folder / inside
        entries = list(_entries(where)) if where.is_dir() else []
        labels = [entry for entry in entries if _is_folder(entry) and not _is_hidden(entry)]
        skipped += [
            _skipped_entry(entry, f"{inside}{entry.name}", "outside", choice)
            for entry in entries
            if entry not in labels
        ]
        classes[split] = tuple(dict.fromkeys(class_name(entry.name) for entry in labels))
        for label in labels:
            linked = where.is_symlink() or label.is_symlink()
            for entry, path, behind in _in_class(label, f"{inside}{label.name}", choice):
                if is_picture_name(entry.name, choice) and not _is_folder(entry):
                    files.append(PictureFile(split, class_name(label.name), path, linked or behind))
                else:
                    skipped.append(_skipped_entry(entry, path, "other", choice))
    missing = tuple(split for split in splits if split != WHOLE and split not in top)
    return Tree(folder, classes, missing, tuple(files), tuple(skipped), choice=choice)


def is_picture_name(name: str, choice: Choice) -> bool:
    """Returns whether a file of this name counts as a picture."""
    return not is_passed_over(name) and os.path.splitext(name)[1].lower() in choice.suffixes


def _in_class(
    label: "os.DirEntry[str]", path: str, choice: Choice
) -> "Iterator[tuple[os.DirEntry[str], str, bool]]":
    """Yields what is in the folder of a class, its path, and whether that leads through a link.

    Folders within it are entered if chosen, each once, however many links lead to it.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [(label, path, False)]
    while waiting:
        folder, path, linked = waiting.pop(0)
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in _entries(folder):
            below = f"{path}/{entry.name}"
            if choice.subfolders and _is_folder(entry) and not _is_hidden(entry):
                waiting.append((entry, below, linked or entry.is_symlink()))
            else:
                yield entry, below, linked


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


def _skipped_entry(
    entry: "os.DirEntry[str]", path: str, kind_of_picture: str, choice: Choice
) -> SkippedEntry:
    if _is_hidden(entry):
        return SkippedEntry(path, "hidden")
    if _is_folder(entry):
        return SkippedEntry(path, "folder")
    if is_picture_name(entry.name, choice):
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
