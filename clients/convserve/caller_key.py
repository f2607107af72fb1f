"""The key by which a server knows the caller: read from a file, sent by each call, never shown."""

from __future__ import annotations

import os
import re
import warnings

from convserve.address import is_local
from convserve.errors import InvalidRequest

KEY_FILE_VARIABLE = "CONVSERVE_KEY_FILE"

# A token of RFC 6750 (2.1) is less; a server may give out others.
_KEY = re.compile(rb"[!-~]+")
_MOST_BYTES = 8192

_warned: set[str] = set()


class CallerKey:
    """The key in a file, which is read again when the file changes.

    A key is renewed by a new file under the same name. While that one cannot be read, or holds no
    key, the one before is sent.
    """

    def __init__(self, path: str) -> None:
        """Reads nothing yet.

        Args:
            path: Of the file.
        """
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what is sent with a call.

        Raises:
            InvalidRequest: The file cannot be read, or holds no key, and never did.
        """
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                self._metadata = (("authorization", f"Bearer {_read(self._path)}"),)
                self._seen = seen
        except (OSError, InvalidRequest) as error:
            if not self._metadata:
                raise _named(error, self._path) from error
        return self._metadata

    def warn_in_plain(self, server: str) -> None:
        """Warns, once for each server, of a key that others on the way may read."""
        if not is_local(server) and server not in _warned:
            _warned.add(server)
            warnings.warn(
                f"the key in {self._path} goes to {server} in plain text, for all on the way to"
                " read: speak TLS, by tls=True, tls_ca or --tls",
                stacklevel=2,
            )

    def __repr__(self) -> str:
        return f"CallerKey({self._path!r})"


def _read(path: str) -> str:
    with open(path, "rb") as file:
        key = file.read(_MOST_BYTES + 1).strip()
    if not _KEY.fullmatch(key) or len(key) > _MOST_BYTES:
        # Without what it holds, which may be a key all the same.
        raise InvalidRequest.expected(
            "key_file", "one line of ASCII without spaces", f"{path} with {_kind(key)}"
        )
    return key.decode()


def _kind(content: bytes) -> str:
    return "other text" if content else "nothing in it"


def _named(error: Exception, path: str) -> InvalidRequest:
    if isinstance(error, InvalidRequest):
        return error
    why = getattr(error, "strerror", None) or error
    return InvalidRequest.expected("key_file", "a file that can be read", f"{path}: {why}")
