"""Wake-ups of other threads that wait until the thread that asks for them has done its work.

A thread that hands over many calls, one after the other, wakes the batcher's with the first one.
That can only wait for the GIL then, on the same processor perhaps: two switches for nothing.
"""

import threading
from collections.abc import Callable
from types import TracebackType


class _Thread(threading.local):
    #: What the thread has put off; None: nothing is put off.
    held: list[Callable[[], None]] | None = None


_thread = _Thread()


class HeldWakeUps:
    """Puts off the wake-ups that this thread asks for until the end of a with statement."""

    def __enter__(self) -> None:
        _thread.held = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held, _thread.held = _thread.held, None
        for wake in held or ():
            wake()


def held(wake: Callable[[], None]) -> bool:
    """Puts off a wake-up, if this thread puts off any.

    Args:
        wake: called later, on this thread.

    Returns: whether it is put off; else there is nothing to wait for.
    """
    if _thread.held is None:
        return False
    _thread.held.append(wake)
    return True
