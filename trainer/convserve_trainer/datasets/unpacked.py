"""The pictures of a table in a file of their bytes, one after the other, made once and kept.

A net is trained on pictures in a random order. Parquet gives a row only with its neighbours, which
are compressed together; here each is one read.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_host import leftovers, os_errors
from convserve_trainer.datasets import content, tables
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.datasets.tables import Table
from convserve_trainer.errors import DataError
from convserve_trainer.host import user_cache

PICTURES, SPANS = "pictures", "spans.npy"
UNUSED_S = 30 * 86_400.0
"""Pictures of tables that no command has read for so long are removed; no training is so long."""


class Unpacked(NamedTuple):
    """The pictures of a table.

    Attributes:
        path: of the file with their bytes.
        spans: int64 [N, 2], where each row begins in it, and its length: `content.NULL` or
            `content.TOO_LARGE` if it has none.
    """

    path: Path
    spans: npt.NDArray[np.int64]


def unpacked(table: Table, column: str, say: Say) -> Unpacked:
    """Returns the pictures of a table, from the user's cache; unpacks them if they are not there.

    Args:
        table: that has them.
        column: with the bytes; "image.bytes" for a field of a struct.
        say: takes a line if they are unpacked.

    Raises:
        DataError: the table cannot be read, or the disk is full or refuses.
    """
    folder = user_cache.folder("tables") / _key(table, column)
    try:
        if not folder.is_dir():
            say(f"unpacking {shown(table.path)} into {shown(folder)}, once")
            _fill(folder, table, column)
            _remove_unused(folder.parent)
        with contextlib.suppress(OSError):  # of another user: who may read it
            os.utime(folder)  # its last use
        return Unpacked(folder / PICTURES, np.load(folder / SPANS))
    except (OSError, ValueError) as error:
        why = os_errors.reason(error) if isinstance(error, OSError) else str(error)
        raise DataError(
            f"the pictures of {shown(table.path)} cannot be kept in {shown(folder)}: {why}; "
            "XDG_CACHE_HOME names another cache"
        ) from error


def _key(table: Table, column: str) -> str:
    status = table.path.stat()
    what = (str(table.path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, column)
    return hashlib.sha256(repr(what).encode(errors="surrogateescape")).hexdigest()[:32]


def _fill(folder: Path, table: Table, column: str) -> None:
    """Makes the folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    leftovers.remove(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder.parent))
    try:
        with leftovers.held(temporary):
            with (temporary / PICTURES).open("wb") as file:
                spans = _written(file, table, column)
            np.save(temporary / SPANS, spans)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # another training was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_unused(parent: Path) -> None:
    """Removes the folders that nothing has read for UNUSED_S; what cannot be removed stays."""
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):  # another process removes it, or another user owns it
            if time.time() - folder.stat().st_mtime > UNUSED_S and not folder.name.startswith("."):
                # Nobody finds half of it.
                gone = folder.with_name(f".{folder.name}.tmp")
                folder.rename(gone)
                shutil.rmtree(gone)


def _written(file: BinaryIO, table: Table, column: str) -> npt.NDArray[np.int64]:
    spans, start = [], 0
    for batch in table.batches([column], small=False):
        for value in tables.values(batch, column):
            data = value.as_buffer()
            length = content.NULL if data is None else data.size
            if length > content.MAX_BYTES:
                length = content.TOO_LARGE
            spans.append((start, length))
            if length > 0:
                start += file.write(data)
    return np.array(spans, np.int64).reshape(-1, 2)
