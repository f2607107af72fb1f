"""Where the bytes of a picture are: in a file of its own, or in a row of a table."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from convserve_imaging.errors import DamagedPictureError, TooManyPixelsError

MAX_BYTES = 256 << 20
"""Larger files are not photographs, and would fill the memory."""

NULL, TOO_LARGE = -1, -2
"""Lengths of what a table has no bytes of."""


class Content(Protocol):
    """What has the bytes of a picture: a `Path`, or a `TableRow`.

    Two of them are equal if they are the same file or row. `str` and `os.fspath` name it.
    """

    def read_bytes(self) -> bytes:
        """Returns all bytes of the picture's file.

        Raises:
            OSError: it cannot be read.
            PictureError: there is nothing to read.
        """

    def stat(self) -> os.stat_result:
        """Returns the status of the file that has the picture: it changes when the picture does.

        Raises:
            OSError: there is no such file.
        """

    def __fspath__(self) -> str: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table, whose bytes were unpacked into a file.

    Attributes:
        table: that has the row.
        row: its number, from 0.
        unpacked: file with the bytes of all rows.
        start: of this row's there.
        length: of them; NULL or TOO_LARGE if it has none.
    """

    table: Path
    row: int
    unpacked: Path
    start: int
    length: int

    def read_bytes(self) -> bytes:
        """See `Content`."""
        if self.length == NULL:
            raise DamagedPictureError("the row has no picture")
        if self.length == TOO_LARGE:
            raise TooManyPixelsError(f"the picture has more than {MAX_BYTES >> 20} MiB")
        with self.unpacked.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), self.length, self.start)
        if len(data) != self.length:
            raise OSError(errno.EIO, f"{self.unpacked} is cut short: remove its folder")
        return data

    def stat(self) -> os.stat_result:
        """See `Content`: that of the table, by which it was known whether to unpack it again."""
        return self.table.stat()

    def __fspath__(self) -> str:
        return f"{self.table} row {self.row}"

    def __str__(self) -> str:
        return os.fspath(self)
