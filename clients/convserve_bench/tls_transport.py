"""A connection over TLS: its handshake, and records in place of bytes; the socket never blocks."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

from convserve_bench.connection import Connection
from convserve_bench.outcomes import Ended
from convserve_bench.transport import READ_BYTES, Address, Transport, TransportLost


class ServerTls(NamedTuple):
    """How a server is spoken to.

    Attributes:
        context: With the authorities that are trusted, and the client's own certificate.
        server_name: That the server's certificate must have.
    """

    context: ssl.SSLContext
    server_name: str


class TlsTransport(Transport):
    """See Transport."""

    _socket: ssl.SSLSocket | socket.socket

    def __init__(self, address: Address, connection: Connection, tls: ServerTls) -> None:
        """Begins to connect.

        Raises:
            TransportLost: It is refused at once.
        """
        super().__init__(address, connection)
        self._tls = tls
        self._secured: ssl.SSLSocket | None = None
        self._agreed = False
        self._wants_write = False

    @property
    def writing(self) -> bool:
        """See Transport.writing."""
        if self._connecting or self._agreed:
            return super().writing
        return self._wants_write

    def write(self) -> None:
        """See Transport.write."""
        if self._connecting:
            self._connected()
        if self._agreed or self._shake_hands():
            super().write()

    def read(self) -> list[Ended]:
        """See Transport.read."""
        if self._connecting:
            return super().read()  # Which raises why it is not made.
        if not self._agreed:
            if not self._shake_hands():
                return []
            super().write()
        return super().read()

    def _connected(self) -> None:
        super()._connected()
        try:
            self._secured = self._socket = self._tls.context.wrap_socket(
                self._socket, server_hostname=self._tls.server_name, do_handshake_on_connect=False
            )
        except OSError as error:
            raise TransportLost(f"cannot connect: {error.strerror}") from error

    def _shake_hands(self) -> bool:
        """Goes on with the handshake; returns whether it is over.

        Raises:
            TransportLost: TLS was not agreed.
        """
        assert self._secured is not None
        self._wants_write = False
        try:
            self._secured.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._wants_write = True
            return False
        except OSError as error:
            why = getattr(error, "verify_message", None) or error.strerror
            raise TransportLost(f"cannot connect: TLS: {why}") from error
        self._agreed = True
        return True

    def _send(self, data: bytes) -> int:
        """See Transport._send; a record holds 16 KiB, and what is sent may be many."""
        sent = 0
        try:
            while sent < len(data):
                sent += self._socket.send(memoryview(data)[sent:])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return sent

    def _receive(self) -> bytes | None:
        """See Transport._receive; reads all: the socket does not show what is unpacked already."""
        parts = []
        try:
            while part := self._socket.recv(READ_BYTES):
                parts.append(part)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b"".join(parts) or None
        return b"".join(parts)
