"""Folders of object stores, s3:// and the like; see folders.Folder."""

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from convserve_scoring.errors import InputError
from convserve_store.errors import StoreError
from convserve_store.location import open_location


class Bucket:
    """A prefix of a bucket; see Folder.

    Args:
        url: of it.

    Raises:
        InputError: it is not the URL of a store, or its client is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._location = open_location(url)
        except StoreError as error:
            raise InputError(str(error)) from error
        self.url = self._location.url
        self._store = self._location.filesystem

    def files(self, below: str = "") -> Iterator[tuple[str, int]]:
        """See Folder.files."""
        with self._errors():
            found = self._store.find(self._path(below), detail=True)
        start = len(self._path("")) + 1
        for path in sorted(found):
            name = path[start:]
            # An object of a store may have the name of a folder.
            if name and not name.endswith("/") and not any(map(_is_hidden, name.split("/"))):
                yield name, found[path]["size"]

    def exists(self, name: str) -> bool:
        """See Folder.exists."""
        with self._errors():
            return bool(self._store.isfile(self._path(name)))

    def open(self, name: str) -> BinaryIO:
        """See Folder.open."""
        with self._errors():
            file: BinaryIO = self._store.open(self._path(name), "rb")
            return file

    def read(self, name: str) -> bytes:
        """See Folder.read."""
        with self._errors():
            return bytes(self._store.cat_file(self._path(name)))

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """See Folder.write: one PUT, or an upload of several parts that is there at its end."""
        mode = "create" if new else "overwrite"
        with self._errors():
            self._store.pipe_file(self._path(name), content, mode=mode)

    def remove(self, name: str) -> None:
        """See Folder.remove."""
        with contextlib.suppress(FileNotFoundError), self._errors():
            self._store.rm_file(self._path(name))

    def clean(self) -> None:
        """See Folder.clean: nothing is ever there in part."""

    def _path(self, name: str) -> str:
        return f"{self._location.path}/{name}".rstrip("/")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raises OSError for whatever the client of the store raises."""
        try:
            with self._location.errors():
                yield
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError | FileExistsError):
                raise error.__cause__ from None
            raise OSError(str(error)) from error


def _is_hidden(part: str) -> bool:
    return part.startswith(".")
