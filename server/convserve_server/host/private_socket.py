"""The path of a Unix socket that only its owner may open.

The socket is made in a new folder that nobody else may enter, gets its mode there, and only then
its path: at no time can others connect. What a server that was killed has left is replaced; that of
one that runs is not.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

#: Longest path, bytes: the kernel's 107 without the name of the folder in which the socket is made.
MOST_BYTES = 107 - len("/.12345678/s")


class PrivateSocket:
    """A socket at a path, until it is closed.

    Args:
        path: of the socket; its folder must be there.
        bind: listens on a path that it is given.

    Raises:
        OSError: the socket cannot be made, or another server listens there.
    """

    def __init__(self, path: Path, bind: Callable[[str], object]) -> None:
        self._path = path.absolute()
        if len(os.fsencode(self._path)) > MOST_BYTES:
            problem = f"expected a path of at most {MOST_BYTES} bytes"
            raise OSError(errno.ENAMETOOLONG, problem, str(self._path))
        with _locked(self._path.parent):
            _check_free(self._path)
            with _private_folder(self._path.parent) as folder:
                made = folder / "s"
                bind(str(made))
                made.chmod(0o600)
                self._identity = _identity(made)
                made.rename(self._path)

    def close(self) -> None:
        """Removes the path, unless it is another one's by now."""
        with contextlib.suppress(OSError), _locked(self._path.parent):
            if _identity(self._path) == self._identity:
                self._path.unlink()


def _check_free(path: Path) -> None:
    """Raises an OSError if there is something at a path other than what a dead server has left."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "expected a socket or nothing, got a file", str(path))
    with socket.socket(socket.AF_UNIX) as probe:
        # Where nobody accepts, it must not wait.
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another server listens there", str(path))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other servers from changing their sockets in a folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    """Gives a new folder that only its owner may enter; removes it."""
    with tempfile.TemporaryDirectory(prefix=".", dir=parent) as folder:
        yield Path(folder)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
