"""The SHA-256 of model files and their external data, worked out once for each state of them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from convserve_bundle import external_data
from convserve_bundle.errors import BundleError

_Identity = tuple[int, int, int, int]


@dataclass(frozen=True)
class Content:
    """What a version holds.

    Attributes:
        digest: SHA-256, hexadecimal: of the model file; if it has external data, also of that.
        size: of all files, bytes.
    """

    digest: str
    size: int


@dataclass(frozen=True)
class _Known:
    identity: _Identity
    content: Content
    #: Of external data by its location; None where there is no such file in the folder.
    external: dict[str, _Identity | None] = field(default_factory=dict)


class Digests:
    """Digests by path; files are read again when they may have changed."""

    def __init__(self) -> None:
        self._known: dict[Path, _Known] = {}

    def read(self, path: Path) -> Content:
        """Returns what a version holds.

        Args:
            path: of its model file.

        Raises:
            OSError: it cannot be read.
        """
        identity = _identity(path)
        known = self._known.get(path)
        if (
            known is not None
            and known.identity == identity
            and all(_external(path, one) == seen for one, seen in known.external.items())
        ):
            return known.content
        known = _read(path, identity)
        self._known[path] = known
        return known.content

    def keep(self, paths: set[Path]) -> None:
        """Forgets all other files."""
        for path in list(self._known):
            if path not in paths:
                self._known.pop(path, None)


def _read(path: Path, identity: _Identity) -> _Known:
    size = identity[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    try:
        locations = external_data.locations(path)
    except BundleError:
        # Whoever loads it says so.
        locations = []
    external: dict[str, _Identity | None] = {}
    for location in locations:
        external[location] = found = _external(path, location)
        # With their names and sizes, so that no bytes can pass from one to the other.
        digest.update(f"{location!r} {found[-1] if found else None}".encode())
        if found:
            with external_data.file_of(path, location).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            size += found[-1]
    return _Known(identity, Content(digest.hexdigest(), size), external)


def _external(path: Path, location: str) -> _Identity | None:
    """Returns what changes whenever external data does; None if it is not in the folder."""
    try:
        return _identity(external_data.file_of(path, location))
    except (BundleError, OSError):
        return None


def _identity(path: Path) -> _Identity:
    """Returns what changes whenever the file does; the last is its size, bytes."""
    stat = path.stat()
    return (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
