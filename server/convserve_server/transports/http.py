"""HTTP/1.1 for the protocols of protocols/rest: an event loop on a thread of its own.

Beside the transport of gRPC, in the same worker: a call costs no second hop. httptools parses,
connections are in http_connection.py, and what requests mean is in protocols/rest.
"""

import asyncio
import contextlib
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import uvloop

from convserve_server.core.errors import DeadlinePassed
from convserve_server.host.port import address
from convserve_server.protocols.base import Call, Caller, Failure
from convserve_server.protocols.grpc_errors import to_failure
from convserve_server.protocols.rest.app import RestApp
from convserve_server.protocols.rest.messages import (
    HttpAnswer,
    HttpRequest,
    Operation,
    RestOptions,
)
from convserve_server.protocols.router import Router
from convserve_server.security.tls import TlsFiles
from convserve_server.security.tls_reload import ReloadedContext
from convserve_server.transports.background import Background
from convserve_server.transports.base import IdleCallerDetector, TransportOptions
from convserve_server.transports.http_connection import HEAD_S, LINGER_S, HttpConnection
from convserve_server.transports.margin import AnswerMargin
from convserve_server.transports.tls_acceptor import TlsAcceptor

#: How often to look for clients that are late, s.
_LOOK_S = 0.5

_BACKLOG = 1024

_PLAIN_BODY = b"this port speaks TLS: use https://\n"
#: For plain text on a port of TLS.
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_PLAIN_BODY), _PLAIN_BODY)
)
#: What is larger is not read, made or compressed on the loop, bytes; others would wait for it.
LARGE_BYTES = 2**16

_TOO_LATE = to_failure(DeadlinePassed("the deadline passed before the answer"))


class HttpTransport:
    """See Transport.

    Args:
        options: what to listen on, and the limits.
        rest: of the protocols.
        max_connections: at a time; others are answered with 503.
        max_body_bytes: of all bodies together that are being received.
    """

    name = "http"

    def __init__(
        self,
        options: TransportOptions,
        rest: RestOptions,
        max_connections: int = 1024,
        max_body_bytes: int = 2**26,
    ) -> None:
        self._options = options
        self._rest = rest
        self._max_connections = max_connections
        self.max_message_bytes = options.max_message_bytes
        self.max_body_bytes = max(max_body_bytes, 2 * options.max_message_bytes)
        self.body_bytes = 0
        self.keepalive_s = float(options.keepalive_s)
        self.max_connection_age_s = options.max_connection_age_s
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._started = threading.Event()
        self._failure: Exception | None = None
        self._tls: ReloadedContext | None = None
        self._port = 0
        self._ending = False
        self._connections: set[HttpConnection] = set()
        # The call of each request that is being answered.
        self._calls: dict[HttpConnection, _HttpCall] = {}
        # Outcomes that come on other threads, until the loop has them; one wake for many.
        self._outcomes: deque[tuple[_HttpCall, bytes | Failure]] = deque()
        self._woken = False
        self._looking = False
        # Whether a call was answered since the loop last waited: its answer is not sent yet, and
        # others that came with it may not be seen yet.
        self._answered = False
        # Requests of which something large is being made, each with the bytes that count meanwhile.
        self._large: dict[HttpConnection, tuple[HttpRequest, int]] = {}
        self._background = Background("http-large")
        self._idle_caller = IdleCallerDetector()
        self._margin = AnswerMargin()
        # Set by start(), and by the thread before it reports that it has started.
        self._router: Router
        self._app: RestApp
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | TlsAcceptor
        self._closing: asyncio.Event
        self._empty: asyncio.Event

    def start(self, router: Router) -> int:
        """See Transport.start."""
        self._router = router
        self._app = RestApp(self._rest, router.stream_methods, router.refused)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            where = address(self._options.host, self._options.port)
            raise OSError(f"cannot listen on {where}: {self._failure}") from self._failure
        return self._port

    def flush(self, timeout_s: float) -> None:
        """See Transport.flush; connections end, each with its last answer."""

        async def ended() -> None:
            self._ending = True
            self._server.close()
            for connection in list(self._connections):
                connection.end()
            if self._connections:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._empty.wait(), timeout_s)

        asyncio.run_coroutine_threadsafe(ended(), self._loop).result()

    def close(self) -> None:
        """See Transport.close."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._background.close()

    @property
    def draining(self) -> bool:
        """See Owner."""
        return self._router.draining or self._ending

    # The thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._closing = asyncio.Event()
            self._empty = asyncio.Event()
            listener = _listen(self._options)
            self._port = listener.getsockname()[1]
            if self._options.tls is None:
                self._server = await self._loop.create_server(
                    lambda: HttpConnection(self), sock=listener, backlog=_BACKLOG
                )
            else:
                self._server = self._serve_tls(self._options.tls, listener)
        except (OSError, ValueError) as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._closing.wait()
        if self._tls is not None:
            self._tls.close()
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        if self._connections:
            await self._empty.wait()

    def _serve_tls(self, files: TlsFiles, listener: socket.socket) -> TlsAcceptor:
        self._tls = ReloadedContext(files, ("http/1.1",))
        self._tls.start()
        return TlsAcceptor(
            listener,
            _BACKLOG,
            self._tls.context,
            lambda: HttpConnection(self),
            most=lambda: max(1, self._max_connections - len(self._connections)),
            handshake_s=HEAD_S,
            shutdown_s=LINGER_S,
            plain_answer=_PLAIN,
        )

    # What connections ask

    def connected(self, connection: HttpConnection) -> bool:
        """See Owner."""
        self._connections.add(connection)
        self._empty.clear()
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_S, self._look)
        if len(self._connections) <= self._max_connections:
            return True
        # The one that has been silent for longest gives way, if no answer is owed to it.
        others = (each for each in self._connections if each is not connection)
        silent = min(others, key=lambda each: each.due, default=connection)
        if silent is connection or math.isinf(silent.due):
            return False
        silent.give_way()
        return True

    def disconnected(self, connection: HttpConnection) -> None:
        """See Owner."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def admits(self, request: HttpRequest) -> bool:
        """See Owner."""
        return self._app.admits(request)

    def begin(self, connection: HttpConnection, request: HttpRequest) -> None:
        """See Owner."""
        # What is compressed may become as large as a body may be.
        if len(request.body) <= LARGE_BYTES and "content-encoding" not in request.headers:
            self._go_on(connection, request, self._app.handle(request), math.inf)
        else:
            self._in_background(
                connection, request, len(request.body), partial(self._app.handle, request), math.inf
            )

    def _in_background(
        self,
        connection: HttpConnection,
        request: HttpRequest,
        size: int,
        step: Callable[[], HttpAnswer | Operation],
        until: float,
    ) -> None:
        """Finds out what to do next for a request beside the loop, and goes on with that.

        Args:
            connection: by which the request came.
            request: that is to be answered.
            size: of what is read, bytes; they count with the bodies that are being received.
            step: returns what to do.
            until: see _go_on.
        """
        self._large[connection] = request, size
        self.body_bytes += size

        def work() -> None:
            # Its client may have gone.
            if self._large.get(connection, (None, 0))[0] is not request:
                return
            found = step()
            if isinstance(found, HttpAnswer):
                found = self._app.finish(request, found)
            with contextlib.suppress(RuntimeError):  # The loop has ended.
                self._loop.call_soon_threadsafe(go_on, found)

        def go_on(found: HttpAnswer | Operation) -> None:
            if self._large.get(connection, (None, 0))[0] is not request:
                return
            del self._large[connection]
            self.body_bytes -= size
            if isinstance(found, HttpAnswer):
                connection.answer(found)
            else:
                self._go_on(connection, request, found, until)

        self._background.submit(work)

    def abandoned(self, connection: HttpConnection) -> None:
        """See Owner."""
        if connection in self._large:
            self.body_bytes -= self._large.pop(connection)[1]
        call = self._calls.pop(connection, None)
        if call is not None:
            if call.deadline is not None and (now := time.monotonic()) >= call.deadline:
                self._margin.note(call.arrived, call.deadline, now, gone=True)
            call.over()
            call.cancel()

    def _go_on(
        self,
        connection: HttpConnection,
        request: HttpRequest,
        step: HttpAnswer | Operation,
        until: float,
    ) -> None:
        """Answers a request, or makes the call that does.

        Args:
            connection: by which the request came.
            request: that is to be answered.
            step: what to do.
            until: time.monotonic() at which the client stops waiting, if an earlier call said so.
        """
        if isinstance(step, HttpAnswer):
            if len(step.body) <= LARGE_BYTES:
                connection.answer(self._app.finish(request, step))
            else:
                self._in_background(connection, request, len(step.body), lambda: step, until)
            return
        now = time.monotonic()
        if step.timeout_s is not None:
            until = min(until, now + step.timeout_s)
        deadline = None if math.isinf(until) else self._margin.deadline(now, until - now)
        others = self._answered or bool(self._calls)
        idle_caller = self._idle_caller.next_call(others=others)
        call = _HttpCall(self.settle, connection, request, step, deadline, until, idle_caller)
        self._calls[connection] = call
        request.body = b""
        if deadline is not None:
            call.timer = self._loop.call_at(
                self._loop.time() + until - now, self._on_deadline, call
            )
        self._router.handle(call)

    def settle(self, call: "_HttpCall", outcome: bytes | Failure) -> None:
        """Answers the request of a call; on any thread."""
        if threading.current_thread() is self._thread:
            self._settle(call, outcome)
            return
        self._outcomes.append((call, outcome))
        # Whoever clears it looks for outcomes afterwards, so each is seen.
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._settle_all)

    def _settle_all(self) -> None:
        self._woken = False
        while self._outcomes:
            self._settle(*self._outcomes.popleft())

    def _settle(self, call: "_HttpCall", outcome: bytes | Failure) -> None:
        connection = call.http_connection
        if self._calls.get(connection) is not call:
            return  # Its client has gone, or its time was over.
        del self._calls[connection]
        call.over()
        if not self._answered:
            self._answered = True
            self._loop.call_soon(self._answers_sent)
        if call.deadline is not None:
            self._margin.note(call.arrived, call.deadline, time.monotonic(), gone=False)
        step = partial(self._app.outcome, call.request, call.operation, outcome)
        if isinstance(outcome, Failure) or len(outcome) <= LARGE_BYTES:
            self._go_on(connection, call.request, step(), call.until)
        else:
            self._in_background(connection, call.request, len(outcome), step, call.until)

    def _answers_sent(self) -> None:
        self._answered = False

    def _on_deadline(self, call: "_HttpCall") -> None:
        """Answers a call whose client waits no longer, or hardly."""
        connection = call.http_connection
        if self._calls.get(connection) is call:
            self.abandoned(connection)
            step = self._app.outcome(call.request, call.operation, _TOO_LATE)
            self._go_on(connection, call.request, step, call.until)

    def _look(self) -> None:
        """Looks for clients that are late, as long as there are any."""
        now = time.monotonic()
        for connection in [each for each in self._connections if each.due <= now]:
            connection.overdue()
        self._looking = bool(self._connections)
        if self._looking:
            self._loop.call_later(_LOOK_S, self._look)


class _HttpCall(Call):
    """A call that answers the request of a connection."""

    __slots__ = ("_settle", "http_connection", "operation", "request", "timer", "until")

    grpc = False

    def __init__(
        self,
        settle: "Callable[[_HttpCall, bytes | Failure], None]",
        connection: HttpConnection,
        request: HttpRequest,
        operation: Operation,
        deadline: float | None,
        until: float,
        idle_caller: bool,
    ) -> None:
        super().__init__(
            operation.method, operation.payload, deadline, connection.peer, idle_caller
        )
        self._settle = settle
        self.http_connection = connection
        self.request = request
        self.operation = operation
        self.until = until
        self.access = request.access
        self.timer: asyncio.TimerHandle | None = None

    def over(self) -> None:
        """Ends the wait for the deadline."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def caller(self) -> Caller:
        identity = self.http_connection.identity
        peer = self.http_connection.peer
        return Caller(peer, tuple(self.request.headers.items()), identity)

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def send(self, payload: bytes) -> bool:
        self._settle(self, payload)
        return True

    def send_failure(self, failure: Failure) -> None:
        self.request.id = self.request_id()
        self._settle(self, failure)


def _listen(options: TransportOptions) -> socket.socket:
    """Returns a socket that is bound.

    Raises:
        OSError: if it cannot be.
    """
    family, _, _, _, name = socket.getaddrinfo(
        options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(name)
    except OSError:
        listener.close()
        raise
    return listener
