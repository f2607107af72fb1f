"""Files that may be gzip: judged by their first bytes, all members read, bombs cut.

Source: RFC 1952, "GZIP file format specification": a file is a series of members. Zero bytes after
the last one, as tapes leave them, are ignored, as gzip ignores them.
"""

import gzip
import io
import zlib

from convserve_imaging.errors import DatasetError

MAGIC = b"\x1f\x8b"
_OTHERS = {
    b"\xfd7zXZ\x00": ("xz", "xz -d"),
    b"BZh": ("bzip2", "bzip2 -d"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"\x1f\x9d": ("compress", "gzip -d"),
}
"""First bytes of other packed files: the name of the format, and the command that unpacks it."""

_CHUNK = 1 << 20  # bytes


class Content:
    """What a file holds, unpacked if it is gzip.

    Args:
        file: opened at its start; it can seek.
        name: of the file, for messages.

    Attributes:
        is_packed: whether it is gzip.

    Raises:
        DatasetError: it is packed with something else.
    """

    def __init__(self, file: io.BufferedIOBase, name: str) -> None:
        first = file.read(max(map(len, _OTHERS)))
        file.seek(0)
        for magic, (what, command) in _OTHERS.items():
            if first.startswith(magic):
                raise DatasetError(
                    f"{name}: expected IDX or gzip, got {what}; unpack it: {command}"
                )
        self.is_packed = first.startswith(MAGIC)
        self._name = name
        self._stream: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if self.is_packed else file
        self._bytes = bytearray()

    def upto(self, most: int, proper: int | None = None) -> bytes:
        """Returns the first bytes of the content, all that it has if these are fewer.

        Args:
            most: bytes that are read; what lies after them is not unpacked.
            proper: the size that the content should have, for messages.

        Raises:
            DatasetError: the gzip is damaged.
            OSError: the file cannot be read.
        """
        try:
            while len(self._bytes) < most:
                more = self._stream.read1(min(_CHUNK, most - len(self._bytes)))
                if not more:
                    break
                self._bytes += more
        except EOFError:
            of = "" if proper is None else f" of {proper:,}"
            raise DatasetError(
                f"{self._name}: damaged gzip: it ends after {len(self._bytes):,} bytes{of}"
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{self._name}: damaged gzip: {error}") from error
        return bytes(self._bytes)
