"""The reference front: grpcio's asyncio server on a thread of its own.

It runs everywhere and serves streams, health and reflection, also for other fronts.
"""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, Self

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2_grpc

from convserve_server.errors import (
    ServeError,
    Unimplemented,
    fitting,
    listed,
    quoted,
    to_trailers,
)
from convserve_server.front import MAX_STREAMS, Call, Cancellation, FrontOptions, Handler, Origin
from convserve_server.fronts import health, reflection, streams
from convserve_server.host.port import address
from convserve_server.service import service

_MAX_PENDING = 2**20
_NEVER_MS = 2**31 - 1

#: Header fields of a call, all together, bytes; as on the native front.
_MAX_METADATA = 2**14

#: A call to a method that there is not is read for so long before it is refused, s.
_HEAR_OUT_S = 1.0

#: So many calls, each after the answer to the last, are taken for those of a lone caller.
ALONE_IN_A_ROW = 16

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcioFront:
    """See Front.

    Args:
        options: what to listen on, and the limits.
        target: listen on this instead of host and port, as "unix:/path".
        ids: call ids to use.
    """

    name = "grpcio"

    def __init__(
        self, options: FrontOptions, target: str | None = None, ids: Iterator[int] | None = None
    ) -> None:
        self._options = options
        self._target = target or address(options.host, options.port)
        self._ids = itertools.count(1) if ids is None else ids
        # Who takes the outcome of each call that has none yet.
        self._pending: dict[int, Callable[[bytes | ServeError], None]] = {}
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._port = 0
        # Set by the thread before it reports that it has started.
        self._loop: asyncio.AbstractEventLoop
        self._handler: Handler
        self._server: grpc.aio.Server
        self._health: health.Health
        self._streams: streams.ClassifyStreams
        self._closing: asyncio.Event
        # How many calls in a row were alone, the current one included.
        self._alone_in_a_row = 0
        # Calls and streams, until their last byte is with the kernel.
        self._open = 0
        self._idle: asyncio.Event

    def start(self, handler: Handler) -> int:
        """See Front.start."""
        self._handler = handler
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise OSError(f"cannot listen on {self._target}: {self._failure}") from self._failure
        return self._port

    def respond(self, call_id: int, payload: bytes) -> None:
        """See Front.respond."""
        if threading.current_thread() is self._thread:
            self._settle(call_id, payload)
        else:
            self._loop.call_soon_threadsafe(self._settle, call_id, payload)

    def fail(self, call_id: int, error: ServeError) -> None:
        """See Front.fail."""
        self._loop.call_soon_threadsafe(self._settle, call_id, error)

    def set_health(self, service_: str, serving: bool | None) -> None:
        """See Front.set_health."""
        self._loop.call_soon_threadsafe(self._health.set, service_, serving)

    def drain(self) -> None:
        """See Front.drain."""
        self._loop.call_soon_threadsafe(self._health.stop)
        self._loop.call_soon_threadsafe(self._streams.stop)

    def flush(self, timeout_s: float) -> None:
        """See Front.flush."""

        async def sent() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)

        asyncio.run_coroutine_threadsafe(sent(), self._loop).result()

    def close(self) -> None:
        """See Front.close."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._closing = asyncio.Event()
            self._idle = asyncio.Event()
            self._idle.set()
            self._health = health.Health()
            self._streams = streams.ClassifyStreams(self._options.max_stream_bytes)
            self._server = self._build()
            self._port = self._server.add_insecure_port(self._target)
            await self._server.start()
        except Exception as error:  # noqa: BLE001 - start() raises it on the caller's thread
            self._failure = error
            return
        finally:
            self._started.set()
        await self._closing.wait()
        await self._server.stop(None)

    def _build(self) -> grpc.aio.Server:
        options = self._options
        age_ms = round(options.max_connection_age_s * 1000) or _NEVER_MS
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                # One limit: between two, grpc refuses calls at random.
                ("grpc.max_metadata_size", _MAX_METADATA),
                ("grpc.absolute_max_metadata_size", _MAX_METADATA),
                # Beyond 1,000 calls that wait for Python, grpc cancels some at random. Refusing is
                # the queue's, with a reason.
                ("grpc.server.max_pending_requests", _MAX_PENDING),
                ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
                # Else the window of a stream that nobody reads grows to 8 MiB; so it is 64 KiB,
                # or what a message needs that is being read.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.so_reuseport", int(options.reuse_port)),
                ("grpc.keepalive_time_ms", options.keepalive_s * 1000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.max_connection_age_ms", age_ms),
                # What we take from clients: a ping every ten seconds, also without calls.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ]
        )
        methods: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for path in options.methods:
            _, service_, method = path.split("/")
            methods.setdefault(service_, {})[method] = self._unary(path)
        _, service_, method = service.STREAM_CLASSIFY.split("/")
        methods.setdefault(service_, {})[method] = grpc.stream_stream_rpc_method_handler(
            self._stream
        )
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, table) for name, table in methods.items()]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        described = [*options.services, health.SERVICE]
        everything_else = _Nothing([*described, *reflection.SERVICES])
        server.add_generic_rpc_handlers([*reflection.handlers(described), everything_else])
        return server

    def _unary(self, path: str) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def handle(payload: bytes, context: Any) -> bytes:
            alone = self._is_alone()
            self._count(context)
            waiting: asyncio.Future[bytes | ServeError] = self._loop.create_future()
            done = partial(_set_result, waiting)
            call_id = self._begin(path, _Caller.of(context), payload, done, alone)
            try:
                outcome = await waiting
            except asyncio.CancelledError:
                self._cancel((call_id,))
                raise
            # The exception of abort() and the context hold each other, and by it this frame, until
            # the next garbage collection.
            del payload
            if isinstance(outcome, ServeError):
                await _abort(context, outcome)
            return outcome  # type: ignore[return-value]  # abort raises

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _stream(self, _: Any, context: Any) -> None:
        self._count(context)
        begin = partial(self._begin, service.CLASSIFY, _Caller.of(context))
        await self._streams.handle(context, begin, self._cancel)

    def _is_alone(self) -> bool:
        """Whether a new call is the only one that is open, as the ones before it were.

        Calls that are worked on at once, on this thread, hide those that wait behind them. But then
        the answer to one is not sent yet when the next begins, and it still counts as open.
        """
        self._alone_in_a_row = 0 if self._open else self._alone_in_a_row + 1
        return self._alone_in_a_row >= ALONE_IN_A_ROW

    def _count(self, context: Any) -> None:
        """Count a call as open until its last byte is with the kernel; its return is too early."""

        def over(_: Any) -> None:
            self._open -= 1
            if not self._open:
                self._idle.set()

        self._open += 1
        self._idle.clear()
        context.add_done_callback(over)

    def _begin(
        self,
        path: str,
        caller: "_Caller",
        payload: bytes,
        done: Callable[[bytes | ServeError], None],
        alone: bool = False,
    ) -> int:
        """Hand a call over; done takes its outcome, unless it is cancelled. Returns its number."""
        call_id = next(self._ids)
        self._pending[call_id] = done
        deadline, peer, origin = caller
        self._handler((Call(call_id, path, payload, deadline, peer, origin, alone),))
        return call_id

    def _cancel(self, call_ids: Iterable[int]) -> None:
        """Tell the handler that the callers of these have gone away."""
        for call_id in call_ids:
            if self._pending.pop(call_id, None) is not None:
                self._handler((Cancellation(call_id),))

    def _settle(self, call_id: int, outcome: bytes | ServeError) -> None:
        done = self._pending.pop(call_id, None)
        if done is not None:
            done(outcome)


class _Nothing(grpc.GenericRpcHandler):
    """Answers calls to methods that there are not; the last of all handlers.

    Args:
        services: that there are.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = listed(sorted(services))

    def service(self, details: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler of any call."""

        async def refuse(_: Any, context: Any) -> None:
            # The native front resets a call that is answered before all of it was read, and its
            # answer may be lost. Who sends without end gets it all the same.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEAR_OUT_S):
                    while await context.read() is not grpc.aio.EOF:
                        pass
            error = Unimplemented(f"no method {quoted(details.method)}; services: {self._services}")
            await _abort(context, error)

        # Also for unary calls, which differ only in how many messages are sent.
        return grpc.stream_stream_rpc_method_handler(refuse)


async def _abort(context: Any, error: ServeError) -> None:
    await context.abort(_CODES[error.code], fitting(str(error)), to_trailers(error))


class _Caller(NamedTuple):
    """What is the same for all calls that come by one HTTP/2 stream; see Call."""

    deadline: float | None
    peer: str
    origin: Callable[[], Origin]

    @classmethod
    def of(cls, context: Any) -> Self:
        """Who calls, by the context of grpcio's call."""
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        return cls(deadline, context.peer(), partial(_origin, context))


def _set_result(waiting: "asyncio.Future[bytes | ServeError]", outcome: bytes | ServeError) -> None:
    # Its task may have been cancelled, and not have run since.
    if not waiting.done():
        waiting.set_result(outcome)


def _origin(context: Any) -> Origin:
    return Origin(context.peer(), tuple(context.invocation_metadata() or ()))
