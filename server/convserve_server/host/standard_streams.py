"""Standard streams that are closed when the command starts, or full while it prints."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO


def open_streams() -> None:
    """Opens the null device in place of each standard stream that is closed.

    Its descriptor would go to the next file or connection otherwise, the one that calls come in by,
    say, and what is logged would go there as well.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or _null()
    sys.stderr = sys.stderr or _null()


@contextlib.contextmanager
def output_checked() -> Iterator[None]:
    """Ends the process with a line and status 1 if what is printed inside cannot be written.

    Raises:
        SystemExit: It cannot; or as the block inside, after --help.
    """
    # argparse passes over errors of its writing. A terminal is never full.
    kept = sys.stdout if sys.stdout.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stdout(kept):
            yield
    finally:
        try:
            if isinstance(kept, io.StringIO):
                sys.stdout.write(kept.getvalue())
            sys.stdout.flush()
        except OSError as error:
            # The interpreter flushes it once more at its end, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                raise SystemExit(141) from None  # As if SIGPIPE had ended it.
            print_problem(f"cannot write standard output: {error.strerror}")
            raise SystemExit(1) from None


def print_problem(line: str) -> None:
    """Prints why the server does not start on standard error, if that can be written."""
    with contextlib.suppress(OSError):
        print(f"convserve-serve: {line}", file=sys.stderr)


def _null() -> TextIO:
    return open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
