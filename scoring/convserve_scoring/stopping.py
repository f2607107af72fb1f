"""Ctrl-C and SIGTERM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from convserve_scoring.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def raised() -> Iterator[None]:
    """Makes a signal raise Stopped wherever the program is; a second one ends it at once.

    Raises:
        Stopped: there was a signal.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        received.append(number)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt as interrupt:  # What Ray makes of ours.
        raise Stopped(received[0] if received else signal.SIGINT) from interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
