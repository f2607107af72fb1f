"""A model that nobody asks for is unloaded, and loaded again at the next call."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from convserve import Client, Health, ServerUnavailable
from tests.bundles import SHAPE
from tests.system.conftest import WAIT_S, StartServer

IMAGES = np.zeros((2, *SHAPE), np.uint8)


@contextmanager
def clients(address: str, count: int) -> Iterator[list[Client]]:
    """Clients with a connection each, so that they reach both workers."""
    made = [Client(address, model="mnist", timeout=WAIT_S) for _ in range(count)]
    try:
        yield made
    finally:
        for client in made:
            client.close()


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_idle_model_answers_all_calls_that_come_at_once(
    start_server: StartServer, front: str
) -> None:
    server = start_server("--front", front, "--workers", "2", "--unload-after-s", "1")
    address = server.wait_until_serving()
    server.wait_for("mnist is unloaded until a call asks for it")
    server.wait_for("mnist/1 is unloaded")
    with clients(address, 8) as callers:
        assert [(model.name, model.version) for model in callers[0].models()] == [("mnist", 1)]
        assert callers[0].health("mnist") is Health.SERVING
        sizes: list[int] = []
        threads = [
            threading.Thread(target=lambda one=one: sizes.append(len(one.classify(IMAGES))))
            for one in callers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert sizes == [2] * 8
    server.wait_for("mnist is loaded again")
    server.wait_for("mnist is unloaded until a call asks for it")
    assert server.terminate() == 0


def test_call_that_cannot_wait_is_told_when_to_come_back_and_then_answered(
    start_server: StartServer,
) -> None:
    server = start_server("--workers", "2", "--unload-after-s", "1")
    address = server.wait_until_serving()
    server.wait_for("mnist is unloaded until a call asks for it")
    server.wait_for("mnist/1 is unloaded")
    with Client(address, model="mnist", timeout=WAIT_S) as client:
        client.models()  # connected
        with pytest.raises(ServerUnavailable, match="is loaded again") as refused:
            client.classify(IMAGES, timeout=0.01)
        assert refused.value.retry_after_s is not None
        assert len(client.classify(IMAGES)) == 2
