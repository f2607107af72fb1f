"""A pause that ends early when the terminal has another size."""

from __future__ import annotations

import select
import signal
import socket
from types import TracebackType


class Pause:
    """Waits, and says whether the terminal has another size since.

    A signal writes to a socket, and the pause waits for that: what a handler of Python may do is
    too little to draw. Of the main thread alone.
    """

    def __enter__(self) -> Pause:
        self._written, self._woken = socket.socketpair()
        self._written.setblocking(False)
        self._woken.setblocking(False)
        # Python writes to it only where the signal has a handler of its own.
        self._handler = signal.signal(signal.SIGWINCH, lambda *_: None)
        self._before = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._before)
        signal.signal(signal.SIGWINCH, self._handler)
        self._written.close()
        self._woken.close()

    def __call__(self, seconds: float) -> bool:
        """Waits for at most so many seconds, 0 or more.

        Returns:
            Whether it has ended early, since a signal came that ends nothing.
        """
        if not select.select([self._woken], [], [], seconds)[0]:
            return False
        while self._has_more():
            pass
        return True

    def _has_more(self) -> bool:
        try:
            return bool(self._woken.recv(4096))
        except BlockingIOError:
            return False
