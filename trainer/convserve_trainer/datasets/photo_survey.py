"""What is known of files from earlier trainings, so that a second one need not read them all.

A file is the same if its stamp is (`Photo.stamp`): path, size and times. One that changed
shortly before it was read may change again within the same tick of its file system's clock, so it
is not kept: the next training reads it again.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_host import atomic_file, os_errors
from convserve_trainer.datasets import photo_reader
from convserve_trainer.datasets.photo_list import DIGEST, STAMP, Photo, PhotoTable, as_values

LEAST = 1_000  # photographs from which it is kept; fewer are read within a second or two
SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system, FAT's, has ticks of 2 s
NAME = "survey.npy"
ROW = np.dtype(
    [
        ("stamp", f"V{STAMP}"),
        ("sha256", "u1", DIGEST),
        ("size", "<i4", 2),
        ("decodes", "?"),  # whether it has been decoded without a fault
    ]
)


class Found(NamedTuple):
    """What came of reading photographs.

    Attributes:
        table: of those that can be read.
        lost: numbers of the others, with the reason.
    """

    table: PhotoTable
    lost: Mapping[int, Exception]


class Survey:
    """Files that were read by earlier trainings, and by this one.

    Args:
        folder: in which it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._before = _read(self._file)
        self._now = [np.zeros(0, ROW)]
        self._changed, self._kept = False, len(self._before)

    def find(self, photos: Sequence[Photo], read: Callable[[int], None] = lambda _: None) -> Found:
        """Returns what is in photographs; reads those alone that are new, or changed.

        Args:
            photos: files.
            read: takes how many of them are known or read so far.
        """
        rows, settled = np.zeros(len(photos), ROW), np.zeros(len(photos), bool)
        begun_ns = time.time_ns()
        lost: dict[int, Exception] = {}
        for number, photo in enumerate(photos):
            try:
                stamp = photo.stamp()
            except OSError as error:
                lost[number] = error
                continue
            rows["stamp"][number] = np.void(stamp.digest)
            settled[number] = stamp.changed_ns < begun_ns - SETTLED_NS
        known = self._look_up(rows)
        new = [number for number in np.flatnonzero(~known).tolist() if number not in lost]
        already = len(photos) - len(new)
        for done, (at, found) in enumerate(
            photo_reader.each(lambda n: photo_reader.identify(photos[new[n]]), len(new))
        ):
            if isinstance(found, Exception):
                lost[new[at]] = found
            else:
                digest, size = found
                rows["sha256"][new[at]] = np.frombuffer(digest, np.uint8)
                rows["size"][new[at]] = size
            read(already + done + 1)
        numbers = np.array([n for n in range(len(photos)) if n not in lost], np.int64)
        kept = numbers[settled[numbers]]
        self._now.append(rows[kept])
        self._changed |= not known[kept].all()
        table = PhotoTable(photos, numbers, rows["sha256"][numbers], rows["size"][numbers])
        return Found(table, dict(sorted(lost.items())))

    def decoded(self) -> npt.NDArray[np.void]:
        """Returns the digests of contents that were decoded without a fault, [N], sorted."""
        rows = np.concatenate([self._before, *self._now])
        return np.unique(as_values(rows["sha256"][rows["decodes"]]))

    def note_decoded(self, contents: npt.NDArray[np.void]) -> None:
        """Keeps in mind that contents can be decoded; see `PhotoTable.contents`."""
        for rows in self._now:
            new = np.isin(as_values(rows["sha256"]), contents) & ~rows["decodes"]
            rows["decodes"] |= new
            self._changed |= bool(new.any())

    def save(self, whole: bool) -> str | None:
        """Writes it for the next training, if that is worth it.

        Args:
            whole: whether all photographs of the data set were found; the others are forgotten.

        Returns:
            Why it could not be written; None if it was, or need not be.
        """
        rows = np.concatenate(self._now)
        if not whole:
            others = self._before[~np.isin(self._before["stamp"], rows["stamp"])]
            rows = np.concatenate([rows, others])
        if len(rows) < LEAST or not self._changed and len(rows) == self._kept:
            return None
        rows = rows[np.unique(rows["stamp"], return_index=True)[1]]
        try:
            _write(self._file, rows)
        except OSError as error:
            return os_errors.reason(error)
        self._changed, self._kept = False, len(rows)
        return None

    def _look_up(self, rows: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Fills in what is known of stamps; returns which are."""
        if not len(self._before) or not len(rows):
            return np.zeros(len(rows), bool)
        stamps = self._before["stamp"]  # sorted
        positions = np.minimum(np.searchsorted(stamps, rows["stamp"]), len(stamps) - 1)
        known: npt.NDArray[np.bool_] = stamps[positions] == rows["stamp"]
        rows[known] = self._before[positions[known]]
        return known


def _read(file: Path) -> npt.NDArray[np.void]:
    """Returns what was kept; nothing where it is not there, or not as it was written."""
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.zeros(0, ROW)
    return rows if rows.dtype == ROW and rows.ndim == 1 else np.zeros(0, ROW)


def _write(file: Path, rows: npt.NDArray[np.void]) -> None:
    """Replaces the file whole, whatever other trainings do meanwhile."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=file.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.save(stream, rows)
        atomic_file.flush(temporary)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
