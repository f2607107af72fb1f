"""Files that are replaced whole or not at all, even if the process or the machine dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Provides a temporary path; what is written there replaces the file at the end.

    One process at a time may write into a folder.

    Raises:
        OSError: the file system refuses; what was there before still is.
    """
    temporary = path.with_name(f".writing{path.suffix}")  # the leftover of a kill is overwritten
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Makes a file's content, or a folder's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
