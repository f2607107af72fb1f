"""A connection and its socket, which never blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from convserve_bench import frames
from convserve_bench.connection import Connection, ProtocolError
from convserve_bench.outcomes import Ended

READ_BYTES = 65_536


class Address(NamedTuple):
    """Where a server listens.

    Attributes:
        family: Of the socket.
        sockaddr: As socket.connect expects it.
    """

    family: int
    sockaddr: tuple[str | int, ...]


class TransportLost(Exception):
    """The connection is gone; str() says why.

    Attributes:
        ended: Calls that were over just before.
    """

    def __init__(self, message: str, ended: Sequence[Ended] = ()) -> None:
        super().__init__(message)
        self.ended = ended


class Transport:
    """One connection to a server, made or being made."""

    def __init__(self, address: Address, connection: Connection) -> None:
        """Begins to connect.

        Raises:
            TransportLost: It is refused at once.
        """
        self.connection = connection
        self._socket = socket.socket(address.family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unsent = b""
        self._connecting = True
        self.fd = self._socket.fileno()
        code = self._socket.connect_ex(address.sockaddr)
        if code not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise TransportLost(f"cannot connect: {os.strerror(code)}")

    @property
    def writing(self) -> bool:
        """Whether it waits for the socket to accept bytes."""
        return self._connecting or bool(self._unsent)

    def start(self, starts: Iterable[float]) -> None:
        """As Connection.start, and sends.

        Raises:
            TransportLost: The server has closed it.
        """
        self.connection.start(starts)
        if not self.writing:
            self.write()

    def write(self) -> None:
        """Sends what there is to send, as much as the socket accepts.

        Raises:
            TransportLost: The connection was not made, or the server has closed it.
        """
        if self._connecting:
            self._connected()
        out = self.connection.out
        data = b"".join((self._unsent, *out)) if self._unsent else b"".join(out)
        out.clear()
        try:
            sent = self._send(data)
        except OSError as error:
            raise TransportLost(f"connection lost: {error.strerror}") from error
        self._unsent = data[sent:]

    def read(self) -> list[Ended]:
        """Reads what has come, and returns the calls that are over.

        Raises:
            TransportLost: The server has closed it, or does not speak HTTP/2.
        """
        try:
            data = self._receive()
        except OSError as error:
            kind = "cannot connect" if self._connecting else "connection lost"
            raise TransportLost(f"{kind}: {error.strerror}") from error
        if data is None:
            return []
        if not data:
            raise TransportLost("connection lost: the server closed it")
        try:
            return self.connection.feed(data)
        except ProtocolError as error:
            with contextlib.suppress(OSError):
                self._send(frames.goaway(error.code))
            raise TransportLost(f"connection lost: {error}", error.ended) from error

    def flush(self) -> None:
        """Sends what the connection has to say beside calls.

        Raises:
            TransportLost: As write.
        """
        if self.connection.out and not self.writing:
            self.write()

    def close(self) -> None:
        """Closes the socket; whatever is in flight is given up."""
        self._socket.close()

    def _connected(self) -> None:
        """Notes that the socket is connected.

        Raises:
            TransportLost: It is not.
        """
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise TransportLost(f"cannot connect: {os.strerror(code)}")
        self._connecting = False

    def _send(self, data: bytes) -> int:
        """Sends what the socket accepts now, and returns how many bytes that were."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _receive(self) -> bytes | None:
        """Returns what has come; None: nothing yet; no bytes: the connection has ended."""
        try:
            return self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return None
