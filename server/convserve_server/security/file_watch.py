"""Files that are read again when they change: certificates and keys that are renewed."""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

#: How often to look, s.
LOOK_S = 1.0


class FileWatch:
    """Calls a function when what files hold has changed, on a thread of its own.

    They are compared by their bytes: who renews a certificate may write it in place, rename a new
    file over it, or exchange a symbolic link above it, as Kubernetes does.

    Args:
        paths: Of the files.
        on_change: Reads them anew. A ValueError or OSError of it is logged, and what was read
            before holds; it is called again when the files change again.
        every_s: How often to look.
    """

    def __init__(
        self, paths: Sequence[Path], on_change: Callable[[], None], every_s: float = LOOK_S
    ) -> None:
        self._paths = tuple(paths)
        self._on_change = on_change
        self._every_s = every_s
        self._seen = self._digests()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file watch", daemon=True)

    def start(self) -> None:
        """Looks from now on."""
        self._thread.start()

    def close(self) -> None:
        """Looks no more; returns when the function runs no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> bool:
        """Looks once; returns whether the files have changed since the last time."""
        found = self._digests()
        if found == self._seen:
            return False
        self._seen = found
        names = ", ".join(map(str, self._paths))
        try:
            self._on_change()
        except (ValueError, OSError) as error:
            log.error("%s: what was read before holds: %s", names, error)
        else:
            log.info("%s: read again", names)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()

    def _digests(self) -> tuple[bytes | None, ...]:
        return tuple(map(_digest, self._paths))


def _digest(path: Path) -> bytes | None:
    """Returns the digest of a file; None if it cannot be read, as between two renames."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None
