"""A folder that one process at a time works in; the lock goes with the process, however it ends."""

import fcntl
import os
from pathlib import Path

from convserve_host import os_errors
from convserve_trainer.errors import CheckpointError


def take(folder: Path, what: str, inside: str = "") -> int:
    """Makes the folder and returns its lock, a file descriptor that is to be closed.

    Args:
        folder: need not exist.
        what: is done in it, for messages: "training".
        inside: a folder in it that is made, too.

    Raises:
        CheckpointError: the file system refuses, or another process has the lock.
    """
    try:
        (folder / inside).mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
    except BlockingIOError as error:
        raise CheckpointError(f"another {what} is running in {folder}") from error
    except OSError as error:
        raise CheckpointError(
            f"the folder of the run, {folder}, cannot be made: {os_errors.reason(error)}"
        ) from error
    return lock
