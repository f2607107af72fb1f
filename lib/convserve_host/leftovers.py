"""What killed processes have left: hidden files and folders that were to be renamed when whole."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

#: Nobody takes so long from making one to its renaming, s. Where file systems know no locks of
#: other machines, that alone tells.
OLD_S = 3600.0

#: Their names.
PATTERN = ".*.tmp"


def remove(folder: Path) -> list[Path]:
    """Removes what lies in a folder, is old and belongs to no process.

    What cannot be removed stays: somebody else may have the right to.

    Returns:
        The paths that were removed.
    """
    removed = []
    for path in sorted(folder.glob(PATTERN)):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD_S and not _is_held(path):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed.append(path)
    return removed


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Marks a file or folder as ours, so that nobody removes it, however long we need."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks; its age protects it
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
