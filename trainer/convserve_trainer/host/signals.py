"""Ctrl-C and SIGTERM: what a user and a container runtime ask a program to stop with."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop.

    Attributes:
        status: that the program then exits with: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Request:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self._number: int | None = None

    def make(self, number: int) -> None:
        """Notes that this signal outcome."""
        self._number = number

    @property
    def number(self) -> int:
        """The signal that there was; 0 for none."""
        return self._number or 0

    def obey(self) -> None:
        """Raises Stopped if there was a signal."""
        if self._number is not None:
            raise Stopped(self._number)


@contextmanager
def raised() -> Iterator[None]:
    """Makes a signal raise Stopped wherever the program is; a second one ends it at once."""

    def stop(number: int) -> None:
        raise Stopped(number)

    with _first_signal(stop):
        yield


@contextmanager
def requested() -> Iterator[Request]:
    """Makes a signal a request that is obeyed when it suits; a second one ends the program."""
    request = Request()
    with _first_signal(request.make):
        yield request


@contextmanager
def immediate() -> Iterator[None]:
    """Makes the first signal end the program, which waits in native code and can lose nothing."""
    before = {number: signal.signal(number, _last_action()) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _first_signal(act: Callable[[int], None]) -> Iterator[None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, _last_action())
        act(number)

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_action() -> "Callable[[int, FrameType | None], None] | signal.Handlers":
    # The system ends no process 1 that left the signal to it; any other ends even in native code.
    return _exit if os.getpid() == 1 else signal.SIG_DFL


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
