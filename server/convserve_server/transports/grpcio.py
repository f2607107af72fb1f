"""The reference transport: grpcio's asyncio server on a thread of its own.

It runs everywhere, and serves streams also for other transports.
"""

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import uvloop

from convserve_server.host.port import address
from convserve_server.protocols.base import Call, Caller, Failure, Metadata, Stream, header_in
from convserve_server.protocols.grpc_errors import to_failure
from convserve_server.protocols.request_ids import REQUEST_ID
from convserve_server.protocols.router import Router
from convserve_server.transports.base import IdleCallerDetector, TransportOptions
from convserve_server.transports.grpcio_tls import GrpcioTls, identity_in
from convserve_server.transports.guard.caller_field import NO_GUARD, caller_of
from convserve_server.transports.margin import AnswerMargin

_MAX_PENDING = 2**20
_NEVER_MS = 2**31 - 1

#: Header fields of a call, all together, bytes; as on the native transport.
_MAX_METADATA = 2**14

#: A call to an unknown method is read for so long before it is refused, s.
_HEAR_OUT_S = 1.0

#: For a client to agree on TLS, s; by grpc's default it is two minutes.
HANDSHAKE_S = 20.0

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcioTransport:
    """See Transport.

    Args:
        options: what to listen on, and the limits.
        target: listen on this instead of host and port, as "unix:/path", without TLS.
    """

    name = "grpcio"

    def __init__(self, options: TransportOptions, target: str | None = None) -> None:
        self._options = options
        self._target = target or address(options.host, options.port)
        self._tls_files = None if target else options.tls
        # Whether clients show certificates.
        self._mutual = self._tls_files is not None and self._tls_files.client_ca is not None
        self._thread = threading.Thread(target=self._run, name="grpcio", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._port = 0
        # Set by the thread before it reports that it has started.
        self._loop: asyncio.AbstractEventLoop
        self._router: Router
        self._server: grpc.aio.Server
        self._closing: asyncio.Event
        self._tls: GrpcioTls | None = None
        self._idle_caller = IdleCallerDetector()
        self._margin = AnswerMargin()
        # Calls and streams, until their last byte is with the kernel.
        self._open = 0
        self._idle: asyncio.Event

    def start(self, router: Router) -> int:
        """See Transport.start."""
        self._router = router
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise OSError(f"cannot listen on {self._target}: {self._failure}") from self._failure
        return self._port

    def flush(self, timeout_s: float) -> None:
        """See Transport.flush."""

        async def sent() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)

        asyncio.run_coroutine_threadsafe(sent(), self._loop).result()

    def close(self) -> None:
        """See Transport.close."""
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
            self._server = self._build()
            self._port = self._add_port()
            await self._server.start()
        except Exception as error:  # noqa: BLE001 - start() raises it on the caller's thread
            self._failure = error
            return
        finally:
            self._started.set()
        await self._closing.wait()
        if self._tls is not None:
            self._tls.close()
        await self._server.stop(None)

    def _add_port(self) -> int:
        if self._tls_files is None:
            return self._server.add_insecure_port(self._target)
        self._tls = GrpcioTls(self._tls_files)
        return self._server.add_secure_port(self._target, self._tls.credentials)

    def _build(self) -> grpc.aio.Server:
        options = self._options
        handshake_ms = round(HANDSHAKE_S * 1000)
        age_ms = round(options.max_connection_age_s * 1000) or _NEVER_MS
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", options.max_streams),
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
                *((("grpc.server_handshake_timeout_ms", handshake_ms),) if self._tls_files else ()),
                # What clients may do: a ping every ten seconds, also without calls.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ]
        )
        methods: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for paths, make in (
            (self._router.unary_methods, self._unary),
            (self._router.stream_methods, self._stream),
        ):
            for path in paths:
                _, service, method = path.split("/")
                methods.setdefault(service, {})[method] = make(path)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, table) for name, table in methods.items()]
        )
        server.add_generic_rpc_handlers([_Unknown(self._router, self._mutual)])
        return server

    def _unary(self, path: str) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def handle(payload: bytes, context: Any) -> bytes:
            idle_caller = self._idle_caller.next_call(others=bool(self._open))
            self._count(context)
            waiting: asyncio.Future[bytes | Failure] = self._loop.create_future()
            left_s = context.time_remaining()
            deadline = None if left_s is None else self._margin.deadline(time.monotonic(), left_s)
            # Now, not when somebody asks: an answer may come when the client has gone, and asking a
            # context for its peer after that ends the process with a segmentation fault.
            caller = _caller(context, self._mutual)
            call = _GrpcioCall(self._loop, self._thread, waiting, path, payload, deadline, caller)
            call.idle_caller = idle_caller
            # The exception of abort() and the context hold each other, and by it this frame, until
            # the next garbage collection.
            del payload
            self._router.handle(call)
            try:
                outcome = await waiting
            except asyncio.CancelledError:
                if deadline is not None and (now := time.monotonic()) >= deadline:
                    self._margin.note(call.arrived, deadline, now, gone=True)
                call.cancel()
                raise
            if isinstance(outcome, Failure):
                del call
                await _abort(context, outcome)
            elif deadline is not None:
                self._margin.note(call.arrived, deadline, time.monotonic(), gone=False)
            return outcome  # type: ignore[return-value]  # abort raises

        return grpc.unary_unary_rpc_method_handler(handle)

    def _stream(self, path: str) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def handle(_: Any, context: Any) -> None:
            self._count(context)
            field = self._options.guard_field
            if field:
                caller = caller_of(field, context.peer(), _metadata(context))
                if caller.peer == context.peer():
                    await _abort(context, NO_GUARD)
            else:
                caller = _caller(context, self._mutual)
            await self._router.handle_stream(_GrpcioStream(path, context, self._router, caller))

        return grpc.stream_stream_rpc_method_handler(handle)

    def _count(self, context: Any) -> None:
        """Counts a call as open until its last byte is with the kernel; its return is too early."""

        def over(_: Any) -> None:
            self._open -= 1
            if not self._open:
                self._idle.set()

        self._open += 1
        self._idle.clear()
        context.add_done_callback(over)


class _GrpcioCall(Call):
    """A call whose handler waits for a future."""

    __slots__ = ("_caller", "_loop", "_thread", "_waiting")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread: threading.Thread,
        waiting: "asyncio.Future[bytes | Failure]",
        method: str,
        payload: bytes,
        deadline: float | None,
        caller: Caller,
    ) -> None:
        super().__init__(method, payload, deadline, caller.peer)
        self._loop = loop
        self._thread = thread
        self._waiting = waiting
        self._caller = caller

    def caller(self) -> Caller:
        return self._caller

    def header(self, name: str) -> str | bytes | None:
        return header_in(self._caller.metadata, name)

    def send(self, payload: bytes) -> bool:
        self._settle(payload)
        return True

    def send_failure(self, failure: Failure) -> None:
        self._settle(_with_id(failure, self.request_id()))

    def _settle(self, outcome: bytes | Failure) -> None:
        if threading.current_thread() is self._thread:
            _set_result(self._waiting, outcome)
        else:
            self._loop.call_soon_threadsafe(_set_result, self._waiting, outcome)


class _GrpcioStream(Stream):
    """A stream by grpcio's context."""

    def __init__(self, method: str, context: Any, router: Router, caller: Caller) -> None:
        super().__init__(method, _deadline(context), caller.peer, router.handle)
        self._context = context
        self._caller = caller
        self._opened = False

    def caller(self) -> Caller:
        return self._caller

    async def read(self) -> bytes | None:
        payload: Any = await self._context.read()
        return None if payload is grpc.aio.EOF else bytes(payload)

    async def open(self) -> None:
        if not self._opened:
            self._opened = True
            # By itself: a first write that is given up would not say that these are sent.
            await self._context.send_initial_metadata(())

    async def write(self, payload: bytes) -> None:
        await self.open()
        try:
            await self._context.write(payload)
        except grpc.aio.InternalError as error:
            # The client has gone. grpcio says so by cancelling the task as well, now or soon, and
            # would log the failed write with its traceback.
            raise asyncio.CancelledError from error

    async def fail(self, failure: Failure) -> None:
        await _abort(self._context, _with_id(failure, self.request_id()))


class _Unknown(grpc.GenericRpcHandler):
    """Answers calls to methods that do not exist; the last of all handlers.

    Args:
        router: knows which do.
        mutual: whether clients may show certificates.
    """

    def __init__(self, router: Router, mutual: bool) -> None:
        self._router = router
        self._mutual = mutual

    def service(self, details: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        """Returns the handler of any call."""

        async def refuse(_: Any, context: Any) -> None:
            # The native transport resets a call that is answered before all of it was read, and its
            # answer may be lost. Who sends without end gets it all the same.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEAR_OUT_S):
                    while await context.read() is not grpc.aio.EOF:
                        pass
            caller = _caller(context, self._mutual)
            error = self._router.refuse_unknown(details.method, caller)
            await _abort(context, to_failure(error))

        # Also for unary calls, which differ only in how many messages are sent.
        return grpc.stream_stream_rpc_method_handler(refuse)


async def _abort(context: Any, failure: Failure) -> None:
    # A protocol may have statuses of its own, which gRPC has no code for.
    code = _CODES.get(failure.code, grpc.StatusCode.UNKNOWN)
    await context.abort(code, failure.message, failure.trailers)


def _with_id(failure: Failure, request_id: str) -> Failure:
    """Returns a failure whose trailers name the id of the request, if there is one."""
    if not request_id:
        return failure
    return replace(failure, trailers=(*failure.trailers, (REQUEST_ID, request_id)))


def _deadline(context: Any) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


def _caller(context: Any, mutual: bool) -> Caller:
    identity = identity_in(context) if mutual else ""
    return Caller(context.peer(), _metadata(context), identity)


def _metadata(context: Any) -> Metadata:
    return tuple(context.invocation_metadata() or ())


def _set_result(waiting: "asyncio.Future[bytes | Failure]", outcome: bytes | Failure) -> None:
    # Its task may have been cancelled, and not have run since.
    if not waiting.done():
        waiting.set_result(outcome)
