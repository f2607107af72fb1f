"""A guard: accepts clients on a network, and passes on to workers what HTTP/2 and the limits allow.

Why a process of its own, and no proxy that speaks HTTP/2 itself: docs/guard.md.
"""

import asyncio
import errno
import logging
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from convserve_server.core.errors import ServeError
from convserve_server.protocols.grpc_errors import to_failure
from convserve_server.telemetry.layouts import OTHER
from convserve_server.telemetry.observer import NO_OBSERVER, Observer
from convserve_server.transports.ages import new_age_s
from convserve_server.transports.guard.connection import ClientConnection, accepted
from convserve_server.transports.guard.memory import RequestMemory

log = logging.getLogger(__name__)

#: For the TLS handshake of a client, s.
_HANDSHAKE_S = 10.0
#: Connections that the kernel keeps until they are accepted, and that we accept at a time.
_BACKLOG, _ACCEPTS = 4096, 64
#: How often to look at all connections; after how many looks a request must have got on.
_LOOK_S, _LOOKS_OF_SLOW = 1.0, 10
#: Until connections are accepted again where no file descriptor is left, s.
_REST_S = 0.5
#: How often at most to log what clients do wrong, s.
_LOG_S = 10.0


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """What a guard honours.

    Attributes:
        host: Address to listen on.
        port: To listen on, shared with other guards.
        field: Name of the header field in which workers hear who calls; see caller_field.py.
        max_message_bytes: Of a request.
        max_received_bytes: Of requests that are not whole yet, on all connections.
        max_connection_bytes: The same on one connection.
        max_connections: At a time; more are refused.
        max_connection_age_s: At which connections end, once their calls are answered; 0: never.
    """

    host: str
    port: int
    field: str
    max_message_bytes: int
    max_received_bytes: int
    max_connection_bytes: int
    max_connections: int
    max_connection_age_s: float


class Guard:
    """Accepts clients while there are workers. All methods run on its event loop.

    Args:
        options: what to listen on, and the limits.
        context: of TLS; None: none.
        observer: of what is refused here.

    Attributes:
        context: for the clients to come; may be exchanged, from any thread.
        connections: of clients.
        ports: of the workers that accept connections, on this machine.
        memory: that requests hold.
    """

    def __init__(
        self,
        options: GuardOptions,
        context: ssl.SSLContext | None,
        observer: Observer = NO_OBSERVER,
    ) -> None:
        self.options = options
        self.context = context
        self._observer = observer
        self.connections: set[ClientConnection] = set()
        self.ports: tuple[int, ...] = ()
        self.memory = RequestMemory(options.max_received_bytes, options.max_connection_bytes)
        self.leaving = False
        self.loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._admitting: set[asyncio.Task[None]] = set()
        self._looks = 0
        self._faults: Counter[str] = Counter()
        self._logged = -_LOG_S
        self._idle = asyncio.Event()
        self.loop.call_later(_LOOK_S, self._look)

    def refused(self, error: ServeError) -> None:
        """Notes a call that is refused here; guards do not read which method it is of."""
        self._observer.refused(OTHER, error.reason)
        self._observer.finished(OTHER, "", to_failure(error).code, error.reason, 0.0)

    def new_age(self) -> float:
        """Returns the age at which a new connection ends, s; a little different each time."""
        return new_age_s(self.options.max_connection_age_s)

    @property
    def listens(self) -> bool:
        """Whether clients can connect."""
        return self._listener is not None

    def set_workers(self, ports: Sequence[int]) -> None:
        """Passes clients on to the workers at these ports alone from now on.

        Clients of others are asked to connect anew; those workers end when they have answered.

        Raises:
            OSError: if the address cannot be bound.
        """
        self.ports = tuple(ports)
        for connection in list(self.connections):
            if connection.port and connection.port not in self.ports:
                connection.leave()
        if self.ports and not self.leaving:
            self._listen()
        elif not self.ports:
            self._close_listener()
        self._check_idle()

    def ports_by_load(self) -> list[int]:
        """Returns the ports of the workers, the one with the fewest connections of ours first."""
        load = Counter(connection.port for connection in self.connections)
        return sorted(self.ports, key=lambda port: (load[port], random.random()))

    def forget(self, connection: ClientConnection) -> None:
        """Notes that a connection has ended."""
        self.connections.discard(connection)
        self._check_idle()

    async def drain(self, lame_duck_s: float, grace_s: float) -> int:
        """Asks all clients to go, and returns when they have.

        Args:
            lame_duck_s: For so long clients are accepted that could not know.
            grace_s: For calls that go on.

        Returns: connections that were aborted.
        """
        end = self.loop.time() + grace_s
        self.leaving = True
        for connection in list(self.connections):
            connection.leave()
        duck = self.loop.call_later(min(lame_duck_s, grace_s), self._close_listener)
        self._check_idle()
        try:
            async with asyncio.timeout_at(end):
                await self._idle.wait()
        except TimeoutError:
            pass
        duck.cancel()
        left = len(self.connections)
        for connection in list(self.connections):
            connection.abort()
        return left

    def _check_idle(self) -> None:
        if self.leaving and not self.listens and not self.connections:
            self._idle.set()

    def _listen(self) -> None:
        if self._listener is not None:
            return
        found = socket.getaddrinfo(self.options.host, self.options.port, type=socket.SOCK_STREAM)
        family, _, _, _, name = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            # So that a server that is started again can have the port while connections that ended
            # here wait for their last packets (TIME_WAIT).
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(name)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self.loop.add_reader(listener, self._accept)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self.loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self._check_idle()

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPTS):
            try:
                client, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._rest()
                return
            client.setblocking(False)
            if len(self.connections) + len(self._admitting) >= self.options.max_connections:
                client.close()
                self._observer.connection_refused()
                self._fault("more connections than max_connections")
                continue
            task = self.loop.create_task(self._admit(client, address))
            self._admitting.add(task)
            task.add_done_callback(self._admitting.discard)

    async def _admit(self, client: socket.socket, address: tuple[str, int]) -> None:
        try:
            await accepted(self, client, address, _HANDSHAKE_S)
        except OSError as error:
            client.close()
            self._observer.connection_refused()
            self._fault(getattr(error, "reason", "") or str(error) or type(error).__name__)

    def _rest(self) -> None:
        """Accepts no connection for a while: no file descriptor is left."""
        self._fault("no file descriptor or memory is left")
        listener = self._listener
        assert listener is not None
        self.loop.remove_reader(listener)

        def again() -> None:
            if self._listener is listener:
                self.loop.add_reader(listener, self._accept)

        self.loop.call_later(_REST_S, again)

    def _look(self) -> None:
        self.loop.call_later(_LOOK_S, self._look)
        self._looks += 1
        now, end_slow = time.monotonic(), self._looks % _LOOKS_OF_SLOW == 0
        for connection in list(self.connections):
            connection.look(now, end_slow=end_slow)
        if self._faults and now - self._logged >= _LOG_S:
            self._logged = now
            what = ", ".join(f"{count} x {fault}" for fault, count in self._faults.most_common(5))
            log.warning("connections that were refused: %s", what)
            self._faults.clear()

    def _fault(self, what: str) -> None:
        if what in self._faults or len(self._faults) < _ACCEPTS:
            self._faults[what] += 1


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop that a guard needs."""
    loop = uvloop.new_event_loop()
    # A client that does something wrong is reported by us alone, in few lines.
    loop.set_exception_handler(_on_exception)
    return loop


def _on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    if isinstance(context.get("exception"), OSError):
        log.debug("a connection failed: %s", context.get("exception"))
    else:
        loop.default_exception_handler(context)
