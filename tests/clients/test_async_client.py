import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import numpy.typing as npt
import pytest

from convserve import AsyncClient, Cancelled, Classification, ClientClosed, OtherEventLoop
from convserve_protos import classifier_pb2
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer, answer, expected_label

Digits = npt.NDArray[np.uint8]


class Gate:
    """An answer that waits until it is opened, and shows when a call has come."""

    def __init__(self, server: ScriptedServer) -> None:
        self._loop = asyncio.get_running_loop()
        self.entered = asyncio.Semaphore(0)
        self.opened = threading.Event()
        server.answer = self

    def __call__(self, request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        self._loop.call_soon_threadsafe(self.entered.release)
        assert self.opened.wait(PATIENCE_S)
        return answer(request)


@pytest.mark.parametrize("images_per_call", [1, 64])
async def test_cancelled_task_cancels_its_calls(
    server: ScriptedServer, digits: Digits, images_per_call: int
) -> None:
    gate = Gate(server)
    async with AsyncClient(
        server.address, model="mnist", max_images_per_call=images_per_call
    ) as client:
        task = asyncio.create_task(client.classify(digits[:2]))
        calls = 2 // images_per_call or 1
        for _ in range(calls):
            await gate.entered.acquire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(calls):
            assert await asyncio.to_thread(server.abandoned.acquire, timeout=PATIENCE_S)
        gate.opened.set()


def test_client_in_a_second_loop_says_so(server: ScriptedServer, digits: Digits) -> None:
    client = AsyncClient(server.address, model="mnist")

    async def stream() -> None:
        async for _ in client.stream(digits[:2]):
            pass

    assert asyncio.run(client.classify(digits[0])).label == expected_label(digits[0])
    for call in (client.classify(digits[0]), client.models(), client.health(), stream()):
        with pytest.raises(OtherEventLoop, match=f"{server.address} belongs to the event loop"):
            asyncio.run(call)
    asyncio.run(client.close())
    with pytest.raises(ClientClosed):
        asyncio.run(client.health())


async def test_timeout_of_the_loop_stays_a_timeout(server: ScriptedServer, digits: Digits) -> None:
    gate = Gate(server)
    async with AsyncClient(server.address, model="mnist") as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.classify(digits[:1]), 0.2)
        assert await asyncio.to_thread(server.abandoned.acquire, timeout=PATIENCE_S)
        gate.opened.set()


async def test_closing_in_another_task_is_an_error_of_ours(
    server: ScriptedServer, digits: Digits
) -> None:
    gate = Gate(server)
    client = AsyncClient(server.address, model="mnist")
    task = asyncio.create_task(client.classify(digits[0]))
    await gate.entered.acquire()
    await client.close()
    with pytest.raises(Cancelled):
        await task
    gate.opened.set()


async def test_closing_ends_a_stream_at_once(server: ScriptedServer, digits: Digits) -> None:
    gate = Gate(server)
    client = AsyncClient(server.address, model="mnist")
    outcomes = client.stream(digits[:2])
    first = asyncio.ensure_future(anext(outcomes))
    await gate.entered.acquire()
    await client.close()
    with pytest.raises(Cancelled):
        await first
    gate.opened.set()


async def test_other_tasks_run_while_one_waits(server: ScriptedServer, digits: Digits) -> None:
    gate = Gate(server)
    async with AsyncClient(server.address, model="mnist") as client:
        tasks = [asyncio.create_task(client.classify(digit)) for digit in digits[:3]]
        for _ in range(3):
            await gate.entered.acquire()
        gate.opened.set()
        answers = await asyncio.gather(*tasks)
        assert [one.label for one in answers] == [expected_label(digit) for digit in digits[:3]]


async def test_stream_accepts_an_async_source_and_holds_up_no_answer(
    server: ScriptedServer, digits: Digits
) -> None:
    answered = asyncio.Event()

    async def source() -> AsyncIterator[Digits]:
        yield digits[0]
        await answered.wait()
        yield digits[1]

    labels = {}
    async with AsyncClient(server.address, model="mnist") as client:
        async for number, outcome in client.stream(source()):
            assert isinstance(outcome, Classification)
            labels[number] = outcome.label
            answered.set()
    assert labels == {0: expected_label(digits[0]), 1: expected_label(digits[1])}


async def test_client_that_was_never_used_closes(server: ScriptedServer) -> None:
    async with AsyncClient(server.address):
        pass


def test_client_may_be_made_before_the_loop(server: ScriptedServer, digits: Digits) -> None:
    client = AsyncClient(server.address, model="mnist")

    async def use() -> str:
        async with client:
            return (await client.classify(digits[0])).label

    assert asyncio.run(use()) == expected_label(digits[0])
