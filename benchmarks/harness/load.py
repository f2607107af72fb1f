"""Load: callers that each wait for an answer before they ask again. Here, our own generator."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import CLASSIFY, GRPC

#: For connecting, and for a call.
_DEADLINE_S = 30.0


class LoadError(Exception):
    """The calls could not be made, or not all were answered; str() says why."""


@dataclass(frozen=True)
class Task:
    """What a driver does to a server.

    Args:
        address: of the server, host:port.
        request: a serialized ClassifyRequest, the same for every call; over HTTP/1.1 a body.
        least_reply_bytes: size of the smallest right answer.
        callers: calls in flight all the time.
        connections: over which they are spread evenly.
        seconds: for how long.
        path: the gRPC method, or what the POSTs go to.
        content_type: GRPC, or that of the POSTs, each caller's over a connection of its own.
        headers: of each call, beside that one.
        tls: whether the server speaks TLS; its certificate is not checked.
    """

    address: str
    request: bytes
    least_reply_bytes: int
    callers: int
    connections: int
    seconds: float
    path: str = CLASSIFY
    content_type: str = GRPC
    headers: tuple[tuple[str, str], ...] = ()
    tls: bool = False


@dataclass(frozen=True)
class Load:
    """What came of it.

    Args:
        seconds: in which the calls were answered.
        latencies_ms: float64 [number of calls], from request to whole answer.
    """

    seconds: float
    latencies_ms: NDArray[np.float64]


class Driver(Protocol):
    """Something that makes load."""

    #: With its version, for the table.
    name: str

    def run(self, task: Task) -> Load:
        """Make the calls.

        Raises:
            LoadError: if any call failed, or none was answered.
        """


class Answer(NamedTuple):
    """One call."""

    #: When the whole answer was there, by time.perf_counter().
    ended_s: float
    latency_s: float
    #: A serialized ClassifyResponse.
    reply: bytes


class OwnDriver:
    """Callers as coroutines over grpc.aio. It takes about as much processor as a server."""

    name = f"own load generator (grpc.aio {grpc.__version__})"

    def run(self, task: Task) -> Load:
        """See Driver.run. Calls over gRPC only, without TLS."""
        if task.content_type != GRPC or task.tls:
            raise LoadError("calls over HTTP/1.1 or TLS need h2load")
        answers = self.answers(task)
        ended_s = np.array([answer.ended_s for answer in answers])
        latencies_s = np.array([answer.latency_s for answer in answers])
        return Load((ended_s.max() - (ended_s - latencies_s).min()).item(), latencies_s * 1e3)

    def answers(self, task: Task) -> list[Answer]:
        """Make the calls and keep every answer, as they came.

        Raises:
            LoadError: as run.
        """
        try:
            return asyncio.run(_stoppable(task))
        except grpc.aio.AioRpcError as error:
            raise LoadError(f"{error.code().name}: {error.details()}") from error
        except TimeoutError as error:
            raise LoadError(f"no connection within {_DEADLINE_S:g} s") from error


async def _stoppable(task: Task) -> list[Answer]:
    """_drive, until a signal comes, which is then given to the handler that was set before.

    Handlers run between any two instructions. One that raises in the middle of grpc's own code
    corrupts its memory, and the process is aborted with all servers still running.
    """
    driving = asyncio.ensure_future(_drive(task))
    came: list[int] = []

    def stop(number: int) -> None:
        came.append(number)
        driving.cancel()

    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        loop.add_signal_handler(number, stop, number)
    try:
        await asyncio.wait([driving])
    finally:
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])
    return driving.result()


async def _drive(task: Task) -> list[Answer]:
    async with AsyncExitStack() as stack:
        # Channels to one address share a connection unless an option says otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(task.address, options))
            for _ in range(task.connections)
        ]
        async with asyncio.timeout(_DEADLINE_S):
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
        answers: list[Answer] = []
        end = time.perf_counter() + task.seconds
        callers = (
            _call(channels[number % len(channels)], task, end, answers)
            for number in range(task.callers)
        )
        await asyncio.gather(*callers)
        return answers


async def _call(channel: grpc.aio.Channel, task: Task, end: float, answers: list[Answer]) -> None:
    """One caller, until the end; its last call is waited for, and it makes one at least."""
    # Without serializers: bytes in, bytes out.
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(task.path)
    before = time.perf_counter()
    while True:
        reply = await method(task.request, timeout=_DEADLINE_S)
        after = time.perf_counter()
        if len(reply) < task.least_reply_bytes:
            raise LoadError(f"an answer of {len(reply)} bytes, at least {task.least_reply_bytes}")
        answers.append(Answer(after, after - before, reply))
        if after >= end:
            return
        before = after
