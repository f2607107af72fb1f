"""Clients whose server is killed and comes back at the same address. Linux: reads /proc."""

import asyncio
import os
import signal
import threading
from collections import Counter

import pytest

from benchmarks.harness.ports import free_port
from convserve import AsyncClient, Client, ConvserveError
from tests.bundles import digit_of
from tests.system.conftest import WAIT_S, ServerProcess, StartServer

TIMEOUT_S = 30.0


@pytest.fixture
def port() -> str:
    return str(free_port())


def kill(server: ServerProcess) -> None:
    """SIGKILL for it and its workers, which would go on without it."""
    for pid in [server.process.pid, *server.worker_pids()]:
        os.kill(pid, signal.SIGKILL)
    server.wait()


class Callers:
    """Threads that call one client in a loop until stopped, and count how their calls end."""

    def __init__(self, client: Client, threads: int) -> None:
        self._client = client
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._answers = [0] * threads
        self.ends: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        while not self._stopped.is_set():
            try:
                label = self._client.classify(digit_of(number % 10)).label
                end = "right" if label == str(number % 10) else f"wrong: {label}"
            except ConvserveError as error:
                end = repr(error)
            with self._changed:
                self.ends[end] += 1
                self._answers[number] += end == "right"
                self._changed.notify_all()

    def wait_for_answers(self, each: int) -> None:
        """Waits until every thread has had so many more answers."""
        with self._changed:
            least = [answers + each for answers in self._answers]
            assert self._changed.wait_for(
                lambda: all(
                    answers >= wanted for answers, wanted in zip(self._answers, least, strict=True)
                ),
                WAIT_S,
            ), self.ends

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(WAIT_S)


# With 100 calls in flight at once they all fail in one moment, which must not use up the tries.
@pytest.mark.parametrize("threads", [1, 100])
@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_calls_that_wait_for_a_server_survive_its_death_and_return(
    start_server: StartServer, port: str, front: str, threads: int
) -> None:
    flags = ("--port", port, "--front", front, "--workers", "1")
    first = start_server(*flags)
    address = first.wait_until_serving()
    with Client(address, model="mnist", timeout=TIMEOUT_S, wait_for_ready=True) as client:
        callers = Callers(client, threads)
        try:
            callers.wait_for_answers(3)
            kill(first)
            start_server(*flags).wait_until_serving()
            callers.wait_for_answers(3)
        finally:
            callers.stop()
    assert set(callers.ends) == {"right"}


async def test_async_calls_survive_it_as_well(start_server: StartServer, port: str) -> None:
    flags = ("--port", port, "--workers", "1")
    first = start_server(*flags)
    address = await asyncio.to_thread(first.wait_until_serving)
    async with AsyncClient(
        address, model="mnist", timeout=TIMEOUT_S, wait_for_ready=True
    ) as client:

        async def ask(number: int) -> str:
            return (await client.classify(digit_of(number % 10))).label

        expected = [str(number % 10) for number in range(100)]
        assert await asyncio.gather(*map(ask, range(100))) == expected
        in_flight = [asyncio.create_task(ask(number)) for number in range(100)]
        await asyncio.sleep(0)  # They are sent, and none is answered.
        await asyncio.to_thread(kill, first)
        again = [asyncio.create_task(ask(number)) for number in range(100)]
        await asyncio.to_thread(start_server(*flags).wait_until_serving)
        assert await asyncio.gather(*in_flight) == expected
        assert await asyncio.gather(*again) == expected
