"""A model that nobody asks for is unloaded, and loaded again at the next call."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convserve import Client, Health, ServerUnavailable
from convserve.calls import ClassifyOptions
from convserve.deadline import Deadline
from convserve.error_mapping import error_from_rpc
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.bundles import SHAPE, write_bundle
from tests.system.conftest import WAIT_S, ServerProcess, StartServer

IMAGES = np.zeros((2, *SHAPE), np.uint8)
#: All are loaded again at once, which takes a multiple of what one takes.
VERSIONS = 32


@contextmanager
def clients(address: str, count: int) -> Iterator[list[Client]]:
    """Clients with a connection each, so that they reach both workers."""
    made = [Client(address, model="mnist", timeout=WAIT_S) for _ in range(count)]
    try:
        yield made
    finally:
        for client in made:
            client.close()


def wait_until_idle(server: ServerProcess) -> str:
    """Waits until mnist was unloaded by a server that has just begun; returns the address."""
    # A slow machine makes a model idle before the last worker listens.
    listening, *_ = server.wait_for_each(
        "listening on", "mnist is unloaded until a call asks for it", "mnist/1 is unloaded"
    )
    address: str = listening["address"]
    return address


def refusal(server: ServerProcess, call: Callable[[], object]) -> grpc.RpcError:
    """How a call of an idle model ends before its deadline.

    A machine that stalls may let that pass first. Then the model is loaded, and idle again later.
    """
    while True:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        error: Any = caught.value
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return caught.value
        server.wait_for("mnist is unloaded until a call asks for it")


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_idle_model_answers_all_calls_that_come_at_once(
    start_server: StartServer, front: str
) -> None:
    server = start_server("--front", front, "--workers", "2", "--unload-after-s", "1")
    address = wait_until_idle(server)
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


def test_call_that_cannot_wait_is_refused_with_a_time_to_come_back_and_then_answered(
    start_server: StartServer, models: Path
) -> None:
    for version in range(2, VERSIONS + 1):
        write_bundle(models, version=version)
    server = start_server("--workers", "2", "--versions", "all", "--unload-after-s", "1")
    address = wait_until_idle(server)
    # The channel of our own library makes the call again until its deadline.
    with grpc.insecure_channel(address) as channel:
        stub: Any = ClassifierStub(channel)
        request = ClassifyOptions("mnist", None, None).request(IMAGES)
        grpc.channel_ready_future(channel).result(WAIT_S)
        # Long for a refusal, and less than loading so many versions takes.
        refused = refusal(server, lambda: stub.Classify(request, timeout=0.2))
        error = error_from_rpc(refused, address, Deadline.after(WAIT_S))
        assert isinstance(error, ServerUnavailable)
        assert "is loaded again" in str(error)
        assert error.retry_after_s is not None
        assert len(stub.Classify(request, timeout=WAIT_S).results) == 2
