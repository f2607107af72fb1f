"""A client that does no harm: so many calls each second, whatever becomes of those before."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import grpc
import grpc.aio

from benchmarks.harness.answers import CLASSIFY

#: Calls a second, and the time that each has.
RATE, DEADLINE_S = 100, 1.0


class SteadyCaller:
    """Calls at fixed times; a call that is late in being made counts as much as a late answer.

    Args:
        connect: returns a coroutine function that makes a call, and raises if it is not answered.

    Attributes:
        due: calls whose deadline has passed, or that were answered.
        latencies_s: of those answered in time, from the time at which the call was due.
    """

    def __init__(self, connect: Callable[[], "Connected"]) -> None:
        self.due = 0
        self.latencies_s: list[float] = []
        self._connect = connect

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Calls until the block ends; begins with a call that must be answered."""
        stop, ready = threading.Event(), threading.Event()
        caller = threading.Thread(target=lambda: asyncio.run(self._run(stop, ready)))
        caller.start()
        ready.wait()
        try:
            yield
        finally:
            stop.set()
            caller.join()

    async def _run(self, stop: threading.Event, ready: threading.Event) -> None:
        connected = self._connect()
        try:
            with contextlib.suppress(Exception):
                await connected.call()
            ready.set()
            calls: set[asyncio.Task[None]] = set()
            started, number = time.perf_counter(), 0
            while not stop.is_set():
                due = started + number / RATE
                await asyncio.sleep(due - time.perf_counter())
                call = asyncio.create_task(self._call(connected, due))
                calls.add(call)
                call.add_done_callback(calls.discard)
                number += 1
            await asyncio.gather(*calls)
        finally:
            ready.set()
            await connected.close()

    async def _call(self, connected: "Connected", due: float) -> None:
        self.due += 1
        # Whatever it is that comes in place of the answer.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(due + DEADLINE_S - time.perf_counter()):
                await connected.call()
            self.latencies_s.append(time.perf_counter() - due)


class Connected:
    """What calls are made over.

    Args:
        call: makes one, and raises if it is not answered.
        close: ends it.
    """

    def __init__(
        self, call: Callable[[], Awaitable[object]], close: Callable[[], Awaitable[object]]
    ) -> None:
        self.call = call
        self.close = close


def over_grpc(address: str, request: bytes) -> Connected:
    """Returns a channel of gRPC, which connects again by itself."""
    options = [
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.min_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 20),
    ]
    channel = grpc.aio.insecure_channel(address, options)
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CLASSIFY)

    async def call() -> None:
        await method(request, timeout=DEADLINE_S, wait_for_ready=True)

    return Connected(call, channel.close)


def over_http(address: str, request: bytes) -> Connected:
    """Returns connections that are used again, and a new one where none is free.

    Args:
        address: of HTTP, host:port.
        request: a whole one, head and body.
    """
    host, _, port = address.rpartition(":")
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call() -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(host, int(port))
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            _, _, rest = head.lower().partition(b"content-length: ")
            await reader.readexactly(int(rest.partition(b"\r\n")[0]))
            if not head.startswith(b"HTTP/1.1 200 ") or b"connection: close" in head.lower():
                raise ConnectionError(head.decode())
        except BaseException:
            writer.transport.abort()
            raise
        idle.append((reader, writer))

    async def close() -> None:
        for _, writer in idle:
            writer.close()

    return Connected(call, close)
