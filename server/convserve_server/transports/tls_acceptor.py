"""Accepts connections that are to speak TLS: bounds those that do not yet, and answers plain text.

asyncio's own server has neither: whoever connects and sends nothing costs memory and a descriptor
until the handshake's time is over, and plain text is closed without a word.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

#: The first byte of TLS, of a record with a handshake (RFC 8446, section 5.1).
_HANDSHAKE = b"\x16"
#: After an error of the system, such as no descriptors being left, s.
_PAUSE_S = 0.1


class TlsAcceptor:
    """Makes a protocol for each connection that has agreed on TLS. All runs on one event loop.

    Args:
        listener: bound, and listening from now on.
        backlog: of connections that the kernel holds.
        context: of TLS.
        protocol: makes the protocol of a connection.
        most: connections without TLS yet; more are closed.
        handshake_s: for a handshake.
        shutdown_s: for the end of a connection.
        plain_answer: for who speaks plain text.
    """

    def __init__(
        self,
        listener: socket.socket,
        backlog: int,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        most: Callable[[], int],
        handshake_s: float,
        shutdown_s: float,
        plain_answer: bytes,
    ) -> None:
        listener.listen(backlog)
        listener.setblocking(False)
        self._listener = listener
        self._context = context
        self._protocol = protocol
        self._most = most
        self._handshake_s = handshake_s
        self._shutdown_s = shutdown_s
        self._plain_answer = plain_answer
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Accepts no more; connections that have agreed on TLS go on."""
        self._accepting.cancel()
        for task in list(self._beginning):
            task.cancel()

    async def _accept(self) -> None:
        with self._listener:
            while True:
                try:
                    connection, _ = await self._loop.sock_accept(self._listener)
                except OSError:
                    # The caller has gone, or there are no descriptors: worker.py logs that.
                    await asyncio.sleep(_PAUSE_S)
                    continue
                if len(self._beginning) >= self._most():
                    connection.close()
                    continue
                task = self._loop.create_task(self._begin(connection))
                self._beginning.add(task)
                task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        handed_over = False
        try:
            async with asyncio.timeout(self._handshake_s):
                first = await self._first_byte(connection)
            if first == _HANDSHAKE:
                handed_over = True
                await self._loop.connect_accepted_socket(
                    self._protocol,
                    connection,
                    ssl=self._context,
                    ssl_handshake_timeout=self._handshake_s,
                    ssl_shutdown_timeout=self._shutdown_s,
                )
            elif first:
                connection.send(self._plain_answer)
                # Closed with what it has sent unread, the connection would be reset, and the
                # answer lost.
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(BlockingIOError):
                    connection.recv(65536)
        except (OSError, TimeoutError) as error:
            log.debug("a connection did not agree on TLS: %s", error)
        finally:
            if not handed_over:
                connection.close()

    async def _first_byte(self, connection: socket.socket) -> bytes:
        """Returns the first byte that a client sends, and leaves it where it is."""
        readable: asyncio.Future[Any] = self._loop.create_future()
        self._loop.add_reader(connection, _set, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(connection)
        return connection.recv(1, socket.MSG_PEEK)


def _set(readable: "asyncio.Future[None]") -> None:
    if not readable.done():
        readable.set_result(None)
