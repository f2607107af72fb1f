"""A thread for what is large, so that a transport's loop goes on meanwhile."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

#: Work that took longer, s, is followed by a rest as long: it may have kept the GIL throughout, and
#: others that wait for it need their turn.
_LONG_S = 0.02


class Background:
    """Does work in order, one piece after the other.

    Args:
        name: of its thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def submit(self, work: Callable[[], None]) -> None:
        """Has work done, which should not raise; the thread begins with the first."""
        with self._changed:
            self._waiting.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread after the work that it is at; what waits is left undone."""
        with self._changed:
            self._closed.set()
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            started = time.monotonic()
            try:
                work()
            except Exception:
                # Whatever it was, the work after it must be done.
                log.exception("work on something large failed")
            # What it holds need not stay in memory during the rest.
            del work
            took_s = time.monotonic() - started
            if took_s > _LONG_S:
                self._closed.wait(took_s)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed.is_set())
            return None if self._closed.is_set() else self._waiting.popleft()
