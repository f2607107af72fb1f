"""How long a command waits for a server that is absent or has not the model, and what it prints.

A job starts together with its server, and a server may be started again while a job runs. Behind
one name there may be several servers, and several workers behind one port, which pick a new model
up within about a second of each other: so one answer does not mean that all of them have the model,
and every call is asked again on its own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from convserve.command.terminal_text import printable
from convserve.errors import Cancelled, ConvserveError, ModelNotFound, ServerUnavailable

T = TypeVar("T")

PAUSE_S = 0.25
"""Between two tries."""

# A reason that was not seen for so long is news again: another outage.
_NEWS_AFTER_S = 10.0

ABSENT: tuple[type[ConvserveError], ...] = (Cancelled, ModelNotFound, ServerUnavailable)
"""What a server does that is starting or stopping; Cancelled: it ended before the call did."""


class Wait:
    """Asks again while the server is absent, until a window is over; for any number of threads.

    The window is counted from the start of the command until something was answered; from then on
    from the first failure of a call.

    Attributes:
        say: Takes a line on what is waited for.
    """

    def __init__(self, wait_s: float, server: str) -> None:
        """Starts the window.

        Args:
            wait_s: Its length in seconds; 0: nothing is asked again.
            server: What is waited for, for messages.
        """
        self.say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
        self._wait_s = wait_s
        self._server = server
        self._started_s = time.monotonic()
        self._answered = False
        self._lock = threading.Lock()
        self._seen_s: dict[str, float] = {}

    def call(
        self,
        ask: Callable[[], T],
        stopped: threading.Event | None = None,
        absent: tuple[type[ConvserveError], ...] = ABSENT,
    ) -> T:
        """Returns what ask returns as soon as it does.

        Args:
            ask: Asks the server once.
            stopped: Ends the wait when it is set.
            absent: The errors after which it is asked again.

        Raises:
            ConvserveError: What ask raised last, with a note of how long was waited; at once where
                it is not one of absent.
        """
        stopped = stopped or threading.Event()
        since_s: float | None = None
        while True:
            try:
                answer = ask()
            except absent as error:
                now_s = time.monotonic()
                if since_s is None:
                    since_s = now_s if self._answered else self._started_s
                left_s = since_s + self._wait_s - now_s
                if left_s <= 0 or stopped.is_set():
                    if self._wait_s and not stopped.is_set():
                        error.add_note(f"waited {now_s - since_s:.1f} s for {self._server}")
                    raise
                self._report(error, now_s)
                stopped.wait(min(PAUSE_S, left_s))
            else:
                self._answered = True
                return answer

    def _report(self, error: ConvserveError, now_s: float) -> None:
        with self._lock:
            seen_s = self._seen_s.get(error.message)
            self._seen_s[error.message] = now_s
            if seen_s is None or now_s - seen_s > _NEWS_AFTER_S:
                self.say(
                    f"waiting for {self._server}, {self._wait_s:g} s at most:"
                    f" {printable(error.message)}"
                )
