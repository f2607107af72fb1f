"""One client's connection and the one to its worker, on the event loop of a guard."""

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, cast

from convserve_server.security.tls import identity_of
from convserve_server.transports.guard import caller_field
from convserve_server.transports.guard.exchange import Exchange
from convserve_server.transports.guard.frames import ProtocolFault

if TYPE_CHECKING:
    from convserve_server.transports.guard.guard import Guard

log = logging.getLogger(__name__)

#: Bytes that wait for a client that does not read, beyond which it is given up. What workers send
#: waits for it in the workers; this is what a client makes us send, as answers to refused calls.
_MOST_UNREAD = 2**20
#: Seconds for a client to read what was sent last.
_END_LOOKS = 5
#: Until a client has to show that it speaks HTTP/2, s.
PREFACE_S = 10.0


class ClientConnection(asyncio.Protocol):
    """Passes on what an Exchange lets pass.

    Args:
        guard: that has accepted it.
        address: of the client.

    Attributes:
        port: of its worker; 0 until it has one.
        made: when it was, time.monotonic().
    """

    def __init__(self, guard: "Guard", address: tuple[str, int]) -> None:
        self._guard = guard
        self._peer = caller_field.peer_of(address)
        self._worker: asyncio.Transport | None = None
        self._over = False
        self._looks_left = _END_LOOKS
        self.port = 0
        self.made = time.monotonic()
        self._oldest_s = guard.new_age()
        self._connecting: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self.exchange: Exchange

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        identity = identity_of(transport.get_extra_info("peercert"))
        options = self._guard.options
        field = caller_field.encode(options.field, self._peer, identity)
        self.exchange = Exchange(
            field, options.max_message_bytes, self._guard.memory, self.flush, self._guard.refused
        )
        self._guard.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol: bytes of the client."""
        if self._over:
            return
        try:
            self.exchange.from_client(data)
        except ProtocolFault as fault:
            log.debug("a connection is ended: %s", fault)
            self.exchange.end(fault)
            self._end()
            return
        if self._worker is not None:
            self.flush()
        elif self.exchange.begun and self._connecting is None:
            self._transport.pause_reading()
            self._connecting = asyncio.ensure_future(self._connect())

    def from_worker(self, data: bytes) -> None:
        """Takes bytes of the worker."""
        if not self._over:
            self.exchange.from_worker(data)
            self.flush()

    def flush(self) -> None:
        """Sends what is to be sent."""
        exchange = self.exchange
        if self._over:
            return
        if exchange.to_worker and self._worker is not None:
            self._worker.write(b"".join(exchange.to_worker))
            exchange.to_worker.clear()
        if exchange.to_client:
            self._transport.write(b"".join(exchange.to_client))
            exchange.to_client.clear()
            if self._transport.get_write_buffer_size() > _MOST_UNREAD:
                self.abort()
        if exchange.ended:
            self._end()

    def leave(self) -> None:
        """Ends it once its calls are answered, and asks the client to begin no more."""
        if self._worker is not None:
            self.exchange.leave()
        elif self._connecting is None:
            self._end()

    def look(self, now: float, *, end_slow: bool) -> None:
        """See Exchange.look; also ends it if it has not begun in time, or is old.

        Args:
            now: time.monotonic().
            end_slow: see there.
        """
        age_s = now - self.made
        if self._over:
            self._looks_left -= 1
            if self._looks_left < 0:
                self._transport.abort()
        elif not self.exchange.begun and (age_s > PREFACE_S or self._guard.leaving):
            self._end()
        elif self._worker is not None:
            self.exchange.look(end_slow=end_slow)
            if age_s > self._oldest_s:
                self.exchange.leave()

    def abort(self) -> None:
        """Ends it at once."""
        self._over = True
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._over = True
        self._guard.forget(self)
        self.exchange.close()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._worker is not None:
            self._worker.abort()

    def pause_writing(self) -> None:
        """See asyncio.Protocol: the client does not read."""
        if self._worker is not None and not self._over:
            self._worker.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._worker is not None and not self._over:
            self._worker.resume_reading()

    async def _connect(self) -> None:
        """Connects to the worker that has the fewest of our connections."""
        for port in self._guard.ports_by_load():
            self.port = port
            try:
                await self._guard.loop.create_connection(
                    lambda: _WorkerConnection(self), "127.0.0.1", port
                )
            except OSError:
                continue  # it has just ended
            return
        self._end()

    def on_worker(self, transport: asyncio.Transport) -> None:
        """Takes the connection to the worker."""
        if self._over:
            transport.abort()
            return
        self._worker = transport
        self._transport.resume_reading()
        self.flush()
        if self._guard.leaving or self.port not in self._guard.ports:
            self.leave()

    def on_worker_lost(self) -> None:
        """Ends it, as its worker has: what it has sent is still passed on."""
        self._worker = None
        if not self._over:
            self.exchange.end()
            self._end()

    def pause_reading(self) -> None:
        """Reads no more of the client: the worker does not read."""
        if not self._over:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads on."""
        if not self._over:
            self._transport.resume_reading()

    def _end(self) -> None:
        """Ends it once what is to be sent to the client is sent."""
        if self._over:
            return
        self._over = True
        if self._worker is not None:
            self._worker.abort()
        if self.exchange.to_client:
            self._transport.write(b"".join(self.exchange.to_client))
        self._transport.close()


class _WorkerConnection(asyncio.Protocol):
    """The connection to the worker."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client.on_worker(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._client.from_worker(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.on_worker_lost()

    def pause_writing(self) -> None:
        self._client.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_reading()


async def accepted(
    guard: "Guard", connection: socket.socket, address: tuple[str, int], handshake_s: float
) -> None:
    """Makes a ClientConnection of a socket.

    Args:
        guard: that has accepted it.
        connection: the socket.
        address: of the client.
        handshake_s: for TLS.

    Raises:
        OSError: the client does not speak TLS as it should, or is gone.
    """
    context = guard.context
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await guard.loop.connect_accepted_socket(
        lambda: ClientConnection(guard, address),
        connection,
        ssl=context,
        ssl_handshake_timeout=handshake_s if context else None,
        ssl_shutdown_timeout=1.0 if context else None,
    )
