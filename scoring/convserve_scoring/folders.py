"""Folders of this machine and of object stores, as scoring needs them: whole files by name.

A name is a path within the folder, with "/" between its parts. A file is there whole or not at all:
on a disk it is written beside, flushed and renamed; on an object store it is one PUT.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from convserve_host import leftovers
from convserve_host.atomic_file import flush
from convserve_store.location import is_url


class Folder(Protocol):
    """A folder, or a prefix of a bucket; its methods may be called from several threads.

    Attributes:
        url: path or URL, by which other processes open it.
    """

    url: str

    def files(self, below: str = "") -> Iterator[tuple[str, int]]:
        """Yields name and size in bytes of each file below a folder in it, sorted by name.

        Hidden files and folders are passed over. Nothing is yielded for a folder that is not there.

        Raises:
            OSError: it cannot be listed.
        """

    def exists(self, name: str) -> bool:
        """Returns whether a file is there."""

    def open(self, name: str) -> BinaryIO:
        """Returns a file, open for reading, in which one can seek.

        Raises:
            OSError: it is not there, or cannot be read.
        """

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            OSError: it is not there, or cannot be read.
        """

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Writes a file, whole or not at all.

        Args:
            name: of the file.
            content: of the file.
            new: whether a file of that name is kept, and FileExistsError raised.

        Raises:
            OSError: it cannot be written.
        """

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens if it is not there."""

    def clean(self) -> None:
        """Removes what killed processes have left half written."""


class LocalFolder:
    """A folder of a file system that all workers see; see Folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.url = str(self.path)

    def files(self, below: str = "") -> Iterator[tuple[str, int]]:
        """See Folder.files."""
        top = self.path / below
        if top.is_dir():
            yield from self._files(top)

    def _files(self, folder: Path) -> Iterator[tuple[str, int]]:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
        # As an object store sorts them, where a folder is a part of a name.
        for entry in sorted(entries, key=_order):
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(Path(entry.path))
            elif entry.is_file():
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:
                    continue  # Other workers remove theirs meanwhile.
                yield Path(entry.path).relative_to(self.path).as_posix(), size

    def exists(self, name: str) -> bool:
        """See Folder.exists."""
        return (self.path / name).is_file()

    def open(self, name: str) -> BinaryIO:
        """See Folder.open."""
        return (self.path / name).open("rb")

    def read(self, name: str) -> bytes:
        """See Folder.read."""
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """See Folder.write."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that no other attempt has: two may write the same file.
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(content)
            flush(temporary)
            if new:
                os.link(temporary, path)
            else:
                os.replace(temporary, path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """See Folder.remove."""
        (self.path / name).unlink(missing_ok=True)

    def clean(self) -> None:
        """See Folder.clean; what is younger than an hour may be in use by another machine."""
        for folder, _, _ in os.walk(self.path):
            leftovers.remove(Path(folder))


def _order(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def open_folder(url: str) -> Folder:
    """Returns the folder of a path or URL; it need not exist.

    Raises:
        InputError: it is not the URL of a store, or its client is not installed.
    """
    if is_url(url):
        from convserve_scoring.buckets import Bucket

        return Bucket(url)
    return LocalFolder(Path(url))


def is_within(url: str, other: str) -> bool:
    """Returns whether a folder is another one, or lies in it."""
    if not is_url(url) and not is_url(other):
        with contextlib.suppress(OSError):
            url, other = os.path.realpath(url), os.path.realpath(other)
    return f"{url.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")
