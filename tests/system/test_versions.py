"""What one client process sees while versions change: never an older one after a newer one."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests.bundles import write_bundle
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.test_serving import answer, request_for
from tests.system.test_supervision import until

FRONTS = pytest.mark.parametrize("front", ["grpcio", "native"])
CONNECTIONS = 16


class Watch:
    """Connections of one process that call without a pause, and what they see together.

    Args:
        address: of the server.
    """

    def __init__(self, address: str) -> None:
        self.newest = 0
        #: Calls that were answered by an older version than any had been before they began.
        self.older: list[str] = []
        self.failed: list[str] = []
        self.answered = 0
        self._address = address
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CONNECTIONS)]

    def _call(self) -> None:
        # A connection of its own, and a new one when that is lost.
        options = [("grpc.use_local_subchannel_pool", 1)]
        while not self._stop.is_set():
            with grpc.insecure_channel(self._address, options) as channel:
                stub: Any = ClassifierStub(channel)
                while not self._stop.is_set():
                    floor = self.newest
                    try:
                        response = stub.Classify(request_for(3), timeout=WAIT_S)
                    except grpc.RpcError as error:
                        with self._lock:
                            self.failed.append(str(error))
                        break
                    with self._lock:
                        self.answered += 1
                        self.newest = max(self.newest, response.version)
                        if response.version < floor or answer(response) != 3:
                            self.older.append(f"{response.version} after {floor}")

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def watch(address: str) -> Iterator[Watch]:
    one = Watch(address)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def refused(address: str) -> list[str]:
    with grpc.insecure_channel(address) as channel:
        stub: Any = ClassifierStub(channel)
        response = stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S)
    return [f"{one.name}/{one.version}" for one in response.refused]


@FRONTS
def test_no_call_is_answered_by_an_older_version_than_one_before_it(
    start_server: StartServer, models: Path, front: str
) -> None:
    server = start_server("--front", front, "--workers", "2", "--scan-s", "0.1")
    with watch(server.wait_until_serving()) as seen:
        for version in range(2, 7):
            write_bundle(models, version=version)
            until(lambda version=version: seen.newest == version, f"version {version}")  # type: ignore[misc]
            before = seen.answered
            until(lambda before=before: seen.answered > before + 200, "calls")  # type: ignore[misc]
    assert seen.older == []
    assert seen.failed == []
    assert server.terminate() == 0


def stopped_worker(server: ServerProcess, text: str) -> int:
    """Stops the worker that the log names as soon as it does so; returns its process id."""
    pid: int = server.wait_for(text)["pid"]
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_worker_that_is_killed_while_it_prepares_a_version_holds_up_no_other(
    start_server: StartServer, models: Path
) -> None:
    server = start_server("--workers", "2", "--scan-s", "0.1", "--log-level", "debug")
    address = server.wait_until_serving()
    with ExitStack() as stack:
        seen = stack.enter_context(watch(address))
        write_bundle(models, version=2)
        # The second one to load it: then it is known to be good.
        server.wait_for("loads mnist/2")
        os.kill(stopped_worker(server, "loads mnist/2"), signal.SIGKILL)
        until(lambda: seen.newest == 2, "version 2")
        server.wait_for("serving with")
        before = seen.answered
        until(lambda: seen.answered > before + 200, "calls")
    assert seen.older == []
    assert refused(address) == []
    assert server.terminate() == 0


def test_worker_that_hangs_before_the_change_is_replaced_and_the_other_changes(
    start_server: StartServer, models: Path
) -> None:
    server = start_server("--workers", "2", "--scan-s", "0.1", "--heartbeat-s", "5")
    address = server.wait_until_serving()
    hangs = server.worker_pids()[1]
    os.kill(hangs, signal.SIGSTOP)
    write_bundle(models, version=2)
    with grpc.insecure_channel(address) as channel:
        stub: Any = ClassifierStub(channel)
        server.wait_for(": killed")
        until(
            lambda: stub.Classify(request_for(3), timeout=WAIT_S, wait_for_ready=True).version == 2,
            "2",
        )
    server.wait_for("serving with")
    for _ in range(8):
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = ClassifierStub(channel)
            assert stub.Classify(request_for(3), timeout=WAIT_S).version == 2
    assert server.terminate() == 0
