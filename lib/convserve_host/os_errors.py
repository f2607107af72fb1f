"""Errors of the file system, as messages that say what to do."""

import errno
import os


def reason(error: OSError) -> str:
    """Returns why, on one line: "Permission denied to user 10001; give it that owner, or ..."."""
    text = error.strerror or " ".join(str(error).split())
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{text} to user {os.geteuid()}; give it that owner, or run as another user"
    if error.errno == errno.EROFS:
        return f"{text}; mount it writable"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}; free some space there"
    return text


def described(error: OSError) -> str:
    """Returns which file or folder, and why."""
    return f"{error.filename}: {reason(error)}" if error.filename else reason(error)
