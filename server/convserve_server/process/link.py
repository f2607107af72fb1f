"""A worker's end of the socket to its supervisor: asks, reports, and sends the heartbeat."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from convserve_server.core.permits import Bundle, Verdict
from convserve_server.process.messages import (
    Alive,
    AsksToListen,
    AsksToLoad,
    Failed,
    Loaded,
    MayListen,
    Message,
    Problem,
    Serves,
    decode,
    encode,
    one_line,
)

#: Longest wait for an answer; the supervisor gives it at once unless something is wrong, s.
_ANSWER_S = 10.0


class SupervisorLink:
    """Messages to and from the supervisor; all methods may be called from any thread.

    Args:
        connection: A stream socket.
        on_end: Called when the supervisor is gone or has closed it, on the reading thread.
    """

    def __init__(self, connection: socket.socket, on_end: Callable[[], None]) -> None:
        self._socket = connection
        self._on_end = on_end
        self._writing = threading.Lock()
        self._news = threading.Condition()
        self._verdicts: dict[Bundle, Verdict] = {}
        self._may_listen: MayListen | None = None
        # Counts the news, so that nobody who waits for some misses them.
        self._count = 0
        #: Called when another answer would be given, on the reading thread.
        self.on_change: Callable[[], None] = lambda: None

    def start(self, heartbeat_s: float) -> None:
        """Reads from now on, and sends a heartbeat several times in heartbeat_s."""
        threading.Thread(target=self._read, name="supervisor", daemon=True).start()
        beat = threading.Thread(
            target=self._beat, args=(heartbeat_s / 5,), name="heartbeat", daemon=True
        )
        beat.start()

    def send(self, message: Message) -> bool:
        """Sends a message; returns False if the supervisor is gone, which on_end reports."""
        line = encode(message)
        try:
            with self._writing:
                self._socket.sendall(line)
        except OSError:
            return False
        return True

    def ask(self, bundle: Bundle, patience_s: float) -> Verdict:
        """Asks whether a bundle may be loaded.

        Args:
            bundle: To be loaded.
            patience_s: How long to wait while another worker tries it.
        """
        end = time.monotonic() + patience_s
        while True:
            with self._news:
                self._verdicts.pop(bundle, None)
                seen = self._count
            self.send(AsksToLoad(bundle))
            with self._news:
                self._news.wait_for(lambda: bundle in self._verdicts, _ANSWER_S)
                verdict = self._verdicts.pop(bundle, None) or Verdict(bundle, "wait")
                left = end - time.monotonic()
                if verdict.verdict != "wait" or left <= 0:
                    return verdict
                if self._count == seen:
                    self._news.wait(left)

    def loaded(self, bundle: Bundle) -> None:
        """Reports that a bundle is loaded and warm."""
        self.send(Loaded(bundle))

    def failed(self, bundle: Bundle, reason: str) -> None:
        """Reports that a bundle cannot be served."""
        self.send(Failed(bundle, one_line(reason)))

    def serves(self, bundles: tuple[Bundle, ...]) -> None:
        """Reports what is loaded now."""
        self.send(Serves(bundles))

    def problem(self, entry: str, problem: str) -> None:
        """Reports that an entry of the models folder is not served, or is no longer a problem."""
        self.send(Problem(entry, one_line(problem)))

    def missing(self) -> tuple[str, ...]:
        """Asks for the models that other workers serve and this one does not."""
        with self._news:
            self._may_listen = None
        self.send(AsksToListen())
        with self._news:
            self._news.wait_for(lambda: self._may_listen is not None, _ANSWER_S)
            return self._may_listen.missing if self._may_listen else ()

    def _beat(self, interval_s: float) -> None:
        while self.send(Alive()):
            time.sleep(interval_s)

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                self._on_message(decode(line))
        self._on_end()

    def _on_message(self, message: Message) -> None:
        with self._news:
            if isinstance(message, Verdict):
                self._verdicts[message.bundle] = message
            elif isinstance(message, MayListen):
                self._may_listen = message
            else:
                self._count += 1
            self._news.notify_all()
        if not isinstance(message, Verdict | MayListen):
            self.on_change()
