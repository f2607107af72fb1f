"""What lies in folders of photographs and is not used: which, how much, and by which rule."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.photo_methods import ALL_SUFFIXES, JPEG_SUFFIXES
from convserve_trainer.wording import counted

NAMED = 3  # of a kind


class SkippedEntry(NamedTuple):
    """Something that no training reads.

    Attributes:
        path: of the file or folder.
        kind: "system" (hidden, or a system's own), "folder" (in a class) or "file".
    """

    path: Path
    kind: str


def lines(entries: Sequence[SkippedEntry], suffixes: tuple[str, ...] = JPEG_SUFFIXES) -> list[str]:
    """Returns what to say of them: a line a kind, and one for each of the first folders.

    Args:
        entries: that no training reads.
        suffixes: of the pictures that it reads.
    """
    lines_ = []
    system, folders, files = (
        [entry.path for entry in entries if entry.kind == kind]
        for kind in ("system", "folder", "file")
    )
    if folders:
        counts = {path: _files_in(path) for path in folders}
        lines_ += [
            f"not used: {shown(path)}, {counted(counts[path], 'file')}: pictures lie directly in "
            "the folder of their class, not in folders within it (--subfolders use)"
            for path in folders[:NAMED]
        ]
        if more := folders[NAMED:]:
            inside = sum(counts[path] for path in more)
            lines_.append(
                f"not used: {counted(len(more), 'more folder')} within classes, "
                f"{counted(inside, 'file')}"
            )
    others = [path for path in files if is_other_picture(path, suffixes)]
    if files:
        what = "JPEG" if suffixes == JPEG_SUFFIXES else "picture"
        hint = f"; {len(others):,} of them with --formats all" if others else ""
        lines_.append(
            f"not used: {counted(len(files), 'file')}, no {what} in a class's folder by name "
            f"({', '.join(suffixes)}){hint}: {_first(files)}"
        )
    if system:
        lines_.append(
            f"not used: {len(system):,} that {'is' if len(system) == 1 else 'are'} hidden or a "
            f"system's own: {_first(system)}"
        )
    return lines_


def is_other_picture(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Returns whether it is a picture by name that another choice of --formats reads."""
    return path.suffix.lower() in ALL_SUFFIXES and path.suffix.lower() not in suffixes


def unlabelled(contents: Sequence[Content]) -> list[str]:
    """Returns a line on pictures without a label, or none."""
    if not contents:
        return []
    return [f"not used: {counted(len(contents), 'picture')} without a label: {_first(contents)}"]


def shown(path: Content) -> str:
    """Returns a path, or a row, as one line that every terminal takes, whatever bytes it has."""
    text = os.fsencode(path).decode(errors="replace")
    return text if text.isprintable() else ascii(text)


def _first(paths: Sequence[Content]) -> str:
    more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
    return ", ".join(map(shown, paths[:NAMED])) + more


def _files_in(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
