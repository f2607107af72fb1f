"""Standard streams that are closed, full, or read by nobody any more.

A training outlives its reader: `convserve-train fit digits | head -2` is trained to its end and
published. A command whose output is all that it does ends with it instead, by one line at most.
"""

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT = "standard output"
CLOSED = OSError(errno.EBADF, "closed", OUTPUT)


class _Descriptor(io.FileIO):
    """A descriptor that refuses at most once; what is written after that goes nowhere.

    Args:
        number: of the descriptor.
        refusal: that the first write meets, whatever it is; None where the descriptor was open.

    Attributes:
        on_refusal: gets what the first refused write met; it may raise it.
    """

    def __init__(self, number: int, refusal: OSError | None = None) -> None:
        super().__init__(number, "w", closefd=False)
        self._refusal, self._refused = refusal, False
        self.on_refusal: Callable[[OSError], None] = _let_be

    def write(self, data: "ReadableBuffer") -> int:
        """Returns how many bytes are done with."""
        if not self._refused:
            try:
                return self._written(data)
            except OSError as error:
                self._refused = True
                self.on_refusal(type(error)(error.errno, error.strerror, OUTPUT))
        return memoryview(data).nbytes

    def _written(self, data: "ReadableBuffer") -> int:
        if self._refusal:
            raise self._refusal
        written: int | None
        while (written := super().write(data)) is None:  # full, and set not to wait
            select.select([], [self], [])
        return written


def settle() -> None:
    """Readies the standard streams for a command whose output is all that it does.

    A closed one takes its descriptor from the files that are opened next, so each gets one that
    leads nowhere. Standard output raises an OSError for the first write that is refused, standard
    error none. Streams that a test put there stay.
    """
    closed = sys.stdout is None
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
        continue
    os.close(number)
    if sys.stdout is sys.__stdout__:
        output = _Descriptor(1, CLOSED if closed else None)
        output.on_refusal = _raise
        sys.stdout = _text(output, sys.stdout, line_buffering=output.isatty())
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Descriptor(2), sys.stderr, line_buffering=True)


def outlive() -> None:
    """Makes the program go on when standard output refuses.

    The reason is printed, but for a reader that is gone and a stream that was closed.
    """
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Descriptor):
        raw.on_refusal = _tell


def flushed(status: int) -> int:
    """Writes what standard output still holds.

    Args:
        status: that the program would exit with.

    Returns:
        That status; if all was well but for this, 141 where the reader is gone, as for a program
        that SIGPIPE ends, or 1.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        return status or refused(error)
    return status


def refused(error: OSError) -> int:
    """Returns the exit status after standard output refused.

    The reason is printed, but for a reader that is gone.
    """
    if isinstance(error, BrokenPipeError):
        return 141
    print(f"convserve-train: {OUTPUT}: {error.strerror}", file=sys.stderr)
    return 1


def is_screen(stream: TextIO) -> bool:
    """Returns whether a stream leads to a terminal on which a line can be drawn anew."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _text(raw: _Descriptor, before: TextIO | None, line_buffering: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",  # a name of a class that a terminal cannot show ends nothing
        line_buffering=line_buffering,
    )


def _let_be(error: OSError) -> None:
    pass


def _raise(error: OSError) -> None:
    raise error


def _tell(error: OSError) -> None:
    if error.errno not in (errno.EPIPE, errno.EBADF):
        print(f"convserve-train: {OUTPUT}: {error.strerror}; going on without it", file=sys.stderr)
