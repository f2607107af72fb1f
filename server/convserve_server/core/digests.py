"""The SHA-256 of model files and their external data, worked out once for each state of them.

With it goes whether the version's folder is what its file of digests, or its signature, says: from
the same bytes, so that what is loaded by this digest is what was verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convserve_bundle import digests_file, external_data
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import digest_of
from convserve_bundle.verification import Verify, hash_of, verify_folder

_Identity = tuple[int, int, int, int]

#: Most bytes of a version's files, where nothing else is asked for.
MOST_BYTES = 2**33
#: Most bytes of a model file: protobuf reads no larger message.
_MOST_MODEL = 2**31 - 1


@dataclass(frozen=True)
class Content:
    """What a version holds.

    Attributes:
        digest: SHA-256, hexadecimal: of the model file; if it has external data, also of that. Of
            no meaning where the version is refused unread.
        size: of all these files, bytes.
        problem: why the version must not be served: it is not what its digests or its signature
            say, or too large; empty if it may be.
    """

    digest: str
    size: int
    problem: str = ""


@dataclass(frozen=True)
class _Known:
    content: Content
    #: Locations of external data.
    locations: tuple[str, ...]
    #: What was looked at; None for what was not there.
    seen: Mapping[Path, _Identity | None]


class Digests:
    """Digests by path; files are read again when they may have changed.

    Args:
        verify: checks the signature that each version must have; None: none needs one.
    """

    def __init__(self, verify: Verify | None = None) -> None:
        self._verify = verify
        self._known: dict[Path, _Known] = {}
        #: Most bytes of a version's files.
        self.most_bytes = MOST_BYTES

    def read(self, path: Path) -> Content:
        """Returns what a version holds.

        Args:
            path: of its model file.

        Raises:
            OSError: it cannot be read.
        """
        known = self._known.get(path)
        if known is None or self._see(path, known.locations) != known.seen:
            self._known[path] = known = self._read(path)
        return known.content

    def keep(self, paths: set[Path]) -> None:
        """Forgets all other files."""
        for path in list(self._known):
            if path not in paths:
                self._known.pop(path, None)

    def forget(self) -> None:
        """Forgets everything: other signatures may count."""
        self._known.clear()

    def _see(self, path: Path, locations: tuple[str, ...]) -> dict[Path, _Identity | None]:
        """Returns what changes whenever a version does, or what its digests or signature state.

        Raises:
            OSError: the model file is not there.
        """
        seen: dict[Path, _Identity | None] = {path: _identity(path)}
        for location in locations:
            seen[path.parent / location] = _external(path, location)
        folder = path.parent
        marks = {folder / name: _there(folder / name) for name in digests_file.NOT_COVERED}
        if self._verify or any(marks.values()):
            # Files that come and go change the folder, or one within it.
            seen |= {one: _there(one) for one in (folder, *digests_file.entries(folder))}
        return seen | marks

    def _read(self, path: Path) -> _Known:
        size = path.stat().st_size
        if size > _MOST_MODEL:
            problem = f"{path.name}: expected at most {_MOST_MODEL} bytes, got {size}"
            return _Known(Content("", size, problem), (), self._see(path, ()))
        try:
            locations = tuple(external_data.locations(path))
        except BundleError:
            # Whoever loads it says so.
            locations = ()
        seen = self._see(path, locations)
        files = {one: _file_of(path, one) for one in locations}
        sizes = {one: file.stat().st_size for one, file in files.items() if file}
        size += sum(sizes.values())
        if size > self.most_bytes:
            problem = f"max_model_bytes: expected at most {self.most_bytes} bytes, got {size}"
            return _Known(Content("", size, problem), locations, seen)
        hashes = {path: hash_of(path), **{file: hash_of(file) for file in files.values() if file}}
        digest = digest_of(
            hashes[path],
            {one: (sizes[one], hashes[file]) if file else None for one, file in files.items()},
        )
        problem = ""
        try:
            verify_folder(path, files, lambda one: hashes.get(one) or hash_of(one), self._verify)
        except BundleError as error:
            problem = str(error)
        return _Known(Content(digest, size, problem), locations, seen)


def _file_of(path: Path, location: str) -> Path | None:
    """Returns the file of external data; None if it is not in the folder."""
    try:
        return external_data.file_of(path, location)
    except BundleError:
        return None


def _external(path: Path, location: str) -> _Identity | None:
    """Returns what changes whenever external data does; None if it is not in the folder."""
    file = _file_of(path, location)
    return None if file is None else _there(file)


def _there(path: Path) -> _Identity | None:
    """Returns what changes whenever an entry of a folder does; None if it is not there."""
    try:
        return _identity(path)
    except OSError:
        return None


def _identity(path: Path) -> _Identity:
    """Returns what changes whenever the file does; the last is its size, bytes."""
    stat = path.stat()
    return (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
