"""Removes what killed processes have left: hidden files and folders that were never renamed."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

#: Age from which one is a leftover, s: renaming follows its creation much sooner. On file systems
#: that have no locks of other machines, the age alone decides.
OLD_S = 3600.0

#: Their names.
PATTERN = ".*.tmp"


def remove(folder: Path) -> list[Path]:
    """Removes the old entries of a folder that belong to no process.

    What cannot be removed stays: another user may be allowed to remove it.

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
    """Locks a file or folder, so that no other process removes it, however old it is."""
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
