"""The end of the socket to the supervisor in a process that it has started; sends the heartbeat."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from convserve_server.process.messages import Alive, Message, decode, encode

M = TypeVar("M", bound=Message)

log = logging.getLogger(__name__)


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
        self._handlers: dict[type[Any], Callable[[Any], None]] = {}
        #: Returns the names of models that calls have asked for since it was last called.
        self.used: Callable[[], tuple[str, ...]] = tuple

    def on(self, kind: type[M], handler: Callable[[M], None]) -> None:
        """Has a function called with each message of a type; those of other types are dropped.

        Args:
            kind: Of the messages.
            handler: Called on the reading thread: it must not take long. Set it before anything
                asks for such messages.
        """
        self._handlers[kind] = handler

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

    def _beat(self, interval_s: float) -> None:
        while self.send(Alive(self.used())):
            time.sleep(interval_s)

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                try:
                    message = decode(line)
                    if (handler := self._handlers.get(type(message))) is not None:
                        handler(message)
                except Exception:
                    # Of a fault of ours; what follows still counts.
                    log.exception("a message of the supervisor cannot be followed")
        self._on_end()
