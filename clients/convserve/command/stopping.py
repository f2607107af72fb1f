"""SIGTERM ends a command as Ctrl-C does, so that a container or a job scheduler can stop it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever is done for Ctrl-C is done for it as well."""


@contextmanager
def terminated_by_sigterm() -> Iterator[None]:
    """Raises Terminated in the main thread when SIGTERM comes, as KeyboardInterrupt for Ctrl-C.

    Without this it would end the process between two parts of a row, or not at all: the kernel
    ignores it in the first process of a container, unless that has a handler for it.

    Raises:
        Terminated: SIGTERM came.
    """

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
