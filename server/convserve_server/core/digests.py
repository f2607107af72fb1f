"""The SHA-256 of model files, worked out once for each state of a file."""

import hashlib
from pathlib import Path

_Identity = tuple[int, int, int, int]


class Digests:
    """Digests by path; a file is read again when it may have changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[_Identity, str]] = {}

    def read(self, path: Path) -> str:
        """Returns the SHA-256 of a file, hexadecimal.

        Raises:
            OSError: it cannot be read.
        """
        identity = _identity(path)
        known = self._known.get(path)
        if known is not None and known[0] == identity:
            return known[1]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[path] = (identity, digest)
        return digest

    def keep(self, paths: set[Path]) -> None:
        """Forgets all other files."""
        for path in list(self._known):
            if path not in paths:
                self._known.pop(path, None)


def _identity(path: Path) -> _Identity:
    """Returns what changes whenever the file does."""
    stat = path.stat()
    return (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
