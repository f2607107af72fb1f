"""Standard streams that are closed or full: what is done about them, and how it is reported."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

# What a write gives where there is no space, no quota or no disk any more, or no stream.
_WRITE_ERRORS = {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}


def open_streams() -> None:
    """Makes sure of the standard streams, before anything else is opened.

    The descriptor of one that is closed would go to the next file or connection, and what is
    printed would go there as well: it gets the null device. Of sys.stdin that is closed, None is
    left, so that a command that reads can say so.

    Raises:
        OSError: Standard output is closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    # A terminal that knows fewer characters must not cost an answer. Not written through: an error
    # is then seen when it is flushed: argparse passes over those of its own writing.
    sys.stdout.reconfigure(errors="replace", write_through=False)  # type: ignore[union-attr]


def is_of_output(error: OSError) -> bool:
    """Returns whether an error can come from writing to a standard stream; others name a file."""
    return error.errno in _WRITE_ERRORS and error.filename is None


def abandon_output() -> None:
    """Lets go of standard output: the interpreter flushes it at its end, and would complain."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(line: str) -> None:
    """Prints a line of a command's failure on standard error, if anybody can have it."""
    with contextlib.suppress(OSError):
        print(f"convserve: {line}", file=sys.stderr)
