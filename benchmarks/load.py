"""Load: callers that each wait for an answer before they ask again. Here, our own generator."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.answers import CLASSIFY

#: For connecting, and for a call.
_DEADLINE_S = 30.0


class LoadError(Exception):
    """The calls could not be made, or not all were answered; str() says why."""


@dataclass(frozen=True)
class Task:
    """What a driver does to a server.

    Args:
        address: of the server, host:port.
        request: a serialized ClassifyRequest, the same for every call.
        least_reply_bytes: size of the smallest right answer.
        callers: calls in flight all the time.
        connections: over which they are spread evenly.
        seconds: for how long.
    """

    address: str
    request: bytes
    least_reply_bytes: int
    callers: int
    connections: int
    seconds: float


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


class OwnDriver:
    """Callers as coroutines over grpc.aio. It takes about as much processor as a server."""

    name = f"own load generator (grpc.aio {grpc.__version__})"

    def run(self, task: Task) -> Load:
        """See Driver.run."""
        try:
            return asyncio.run(_drive(task))
        except grpc.aio.AioRpcError as error:
            raise LoadError(f"{error.code().name}: {error.details()}") from error
        except TimeoutError as error:
            raise LoadError(f"no connection within {_DEADLINE_S:g} s") from error


async def _drive(task: Task) -> Load:
    async with AsyncExitStack() as stack:
        # Channels to one address share a connection unless told otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(task.address, options))
            for _ in range(task.connections)
        ]
        async with asyncio.timeout(_DEADLINE_S):
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
        latencies_s: list[float] = []
        start = time.perf_counter()
        callers = (
            _call(channels[number % len(channels)], task, start + task.seconds, latencies_s)
            for number in range(task.callers)
        )
        await asyncio.gather(*callers)
        return Load(time.perf_counter() - start, np.array(latencies_s) * 1e3)


async def _call(
    channel: grpc.aio.Channel, task: Task, end: float, latencies_s: list[float]
) -> None:
    """One caller, until the end; its last call is waited for."""
    # Without serializers: bytes in, bytes out.
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CLASSIFY)
    before = time.perf_counter()
    while before < end:
        reply = await method(task.request, timeout=_DEADLINE_S)
        after = time.perf_counter()
        if len(reply) < task.least_reply_bytes:
            raise LoadError(f"an answer of {len(reply)} bytes, at least {task.least_reply_bytes}")
        latencies_s.append(after - before)
        before = after
