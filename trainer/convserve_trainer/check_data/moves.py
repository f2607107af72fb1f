"""`--fix`: moves the files that findings name out of the set, and never deletes one.

They go beside the set, into DIR-set-aside/REASON/ and there to the same path as before. A file in
the way stays: the new one becomes "name-2.jpg". Every move is a line of DIR-set-aside/moved.tsv
before it is made: where from, where to (both as seen from the folder that holds DIR), why; tabs
between, escapes as in Python's strings for what is not printable.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from convserve_trainer.check_data.findings import Finding
from convserve_trainer.check_data.tree import Tree, escaped
from convserve_trainer.errors import DataError

MANIFEST = "moved.tsv"
_HEADER = "from\tto\treason\n"


@dataclass(frozen=True, slots=True)
class Move:
    """A file that was moved.

    Attributes:
        source: where from, as seen from the folder that holds the set.
        target: where to, likewise.
        reason: name of the kind of finding.
    """

    source: str
    target: str
    reason: str


@dataclass(frozen=True)
class MoveResult:
    """What `--fix` did.

    Attributes:
        folder: beside the set; it exists if anything was moved.
        moves: in the order they were made.
        left: paths of files that were to be moved, but lie behind a link: the files belong to
            another folder, which may be a part of the set as well.
    """

    folder: Path
    moves: tuple[Move, ...]
    left: tuple[str, ...]

    @property
    def manifest(self) -> Path:
        """The list of all moves, also those of earlier times."""
        return self.folder / MANIFEST


def move_files(tree: Tree, findings: Iterable[Finding]) -> MoveResult:
    """Moves every file that the findings say to move, each once, for the gravest reason.

    Raises:
        DataError: a move failed; the message says how many were made before.
    """
    reasons: dict[str, str] = {}
    for finding in findings:
        for item in finding.items:
            for path in item.moves:
                reasons.setdefault(path, finding.kind.name)
    behind_link = {file.path for file in tree.files if file.behind_link}
    left = tuple(sorted(behind_link.intersection(reasons)))
    folder = tree.folder.resolve()  # a link's own name may lie on another disk, or be "."
    target = folder.with_name(f"{folder.name}-set-aside")
    moves: list[Move] = []
    try:
        for path, reason in sorted(reasons.items()):
            if path not in behind_link:
                moves.append(_move(folder, path, target, reason))
    except OSError as error:
        done = f"{len(moves):,} files were moved" if moves else "nothing was moved"
        listed = f" and are listed in {target / MANIFEST}" if moves else ""
        where = os.fsdecode(error.filename or target)
        raise DataError(
            f"not everything could be set aside: {escaped(where)}: {error.strerror}; {done}{listed}"
        ) from error
    return MoveResult(target, tuple(moves), left)


def _move(folder: Path, path: str, aside: Path, reason: str) -> Move:
    source = folder / path
    target = aside / reason / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target = _free(target)
    beside = folder.parent
    move = Move(str(source.relative_to(beside)), str(target.relative_to(beside)), reason)
    with _listed(aside / MANIFEST, move):
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _move_to_another_disk(source, target)
    return move


def _free(target: Path) -> Path:
    """Returns the path, with a number if there is a file already."""
    number = 1
    free = target
    while os.path.lexists(free):
        number += 1
        free = target.with_name(f"{target.stem}-{number}{target.suffix}")
    return free


def _move_to_another_disk(source: Path, target: Path) -> None:
    """Copies a file, or a link as a link, and takes the original away once the copy is whole."""
    try:
        shutil.copy2(source, target, follow_symlinks=False)
        source.unlink()
    except OSError:
        with suppress(OSError):
            target.unlink()  # the original is still there
        raise


@contextmanager
def _listed(manifest: Path, move: Move) -> Iterator[None]:
    """Writes the line of a move before it is made, and takes it back if the move fails."""
    columns = (escaped(move.source), escaped(move.target), move.reason)
    line = "\t".join(columns) + "\n"
    with manifest.open("ab", buffering=0) as file:
        start = file.tell()
        try:
            _write(file, (line if start else _HEADER + line).encode())
            yield
        except OSError:
            file.truncate(start)
            raise


def _write(file: BinaryIO, data: bytes) -> None:
    if file.write(data) != len(data):  # the disk is full but for a few bytes
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
