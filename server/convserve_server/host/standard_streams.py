"""The three standard streams of a process that was started without some of them."""

import os


def open_missing() -> None:
    """Open /dev/null in place of standard streams that are closed.

    Otherwise the next socket or file would get the number of one of them, and what is written to
    standard output would be written there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
