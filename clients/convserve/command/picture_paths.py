"""Which files the command is to read: those named, and the pictures in the folders named."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from convserve_imaging.file_formats import SUFFIXES
from convserve_imaging.folder_names import is_passed_over

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Found:
    """A file to read, or a path that there is nothing to read from.

    Attributes:
        path: As it was named; of a file in a folder, the folder's name goes before it.
        error: Why there is nothing to read.
        endless: Reading may wait for ever, as it may for standard input or a pipe.
        data: What was read already.
    """

    path: str
    error: Exception | None = None
    endless: bool = False
    data: bytes | None = None


def suffixes_of(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Returns what files of some formats end with, which are those of ModelInfo.file_formats."""
    return tuple(suffix for each in formats for suffix in SUFFIXES[each])


def find(paths: Iterable[str], suffixes: tuple[str, ...]) -> Iterator[Found]:
    """Finds the files to read, one after another, holding the names of one folder at a time.

    A file that is named is accepted whatever it is called. Of a folder all files with one of the
    suffixes are found, in the order of their names, then those of the folders in it. What is hidden
    or a system's own is passed over. Links are followed; a folder is entered once, however many
    links lead to it.

    Args:
        paths: Files and folders; "-" is standard input.
        suffixes: Of pictures in folders, in lower case; those of files may be in any.
    """
    for path in paths:
        if path == STDIN:
            yield Found(path, endless=True)
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            yield Found(path, error)
            continue
        if stat.S_ISDIR(mode):
            yield from _inside(path, suffixes)
        else:
            yield Found(path, endless=not stat.S_ISREG(mode))


def _inside(top: str, suffixes: tuple[str, ...]) -> Iterator[Found]:
    entered: set[tuple[int, int]] = set()
    waiting = [top]
    empty = True
    while waiting:
        folder = waiting.pop()
        try:
            identity = os.stat(folder)
            if (identity.st_dev, identity.st_ino) in entered:
                continue
            entered.add((identity.st_dev, identity.st_ino))
            files, folders = _listed(folder, suffixes)
        except OSError as error:
            empty = False
            yield Found(folder, error)
            continue
        for name in files:
            empty = False
            yield Found(os.path.join(folder, name))
        waiting.extend(os.path.join(folder, name) for name in reversed(folders))
    if empty:
        yield Found(top, FileNotFoundError(f"no pictures in this folder ({', '.join(suffixes)})"))


def _listed(folder: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_passed_over(entry.name):
                continue
            try:
                if entry.is_dir():
                    folders.append(entry.name)
                    continue
                # A link that leads nowhere is found, so that its row says why.
                special = not entry.is_file() and os.path.exists(entry.path)
            except OSError:
                special = False  # Reading it will show.
            if not special and os.path.splitext(entry.name)[1].lower() in suffixes:
                files.append(entry.name)
    return sorted(files), sorted(folders)
