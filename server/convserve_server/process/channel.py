"""The supervisor's end of the socket to a worker: never blocks, whatever the worker does."""

import logging
import socket

from convserve_server.process.messages import Message, decode, encode

log = logging.getLogger(__name__)

_CHUNK = 65536


class Channel:
    """Messages to and from one worker.

    Args:
        connection: A stream socket; the channel closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._received = b""
        self._unsent = b""

    def fileno(self) -> int:
        """Returns the descriptor of the socket."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether messages wait until the worker reads."""
        return bool(self._unsent)

    def receive(self) -> list[Message] | None:
        """Returns the messages that are there; None if the worker has closed its end."""
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:  # the worker was killed with messages of ours unread
            data = b""
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        messages = []
        for line in lines:
            try:
                messages.append(decode(line))
            except ValueError:
                # Of a fault of ours; the others still count.
                log.exception("a message of a worker cannot be read")
        return messages

    def send(self, message: Message) -> None:
        """Queues a message, and sends what the socket accepts now."""
        self.send_line(encode(message))

    def send_line(self, line: bytes) -> None:
        """Queues a message that is encoded, and sends what the socket accepts now."""
        self._unsent += line
        self.flush()

    def flush(self) -> None:
        """Sends what the socket accepts now. The worker's end is noticed by receive()."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._unsent = b""

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
