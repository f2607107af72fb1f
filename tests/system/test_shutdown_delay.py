"""A server that serves on after SIGTERM, until balancers have noticed. Linux: reads /proc."""

import os
import shutil
import signal
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.harness.ports import free_port
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from convserve_server.protocols.health import LIVE
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.test_serving import answer, channel_to, request_for
from tests.system.test_supervision import hanging_bundle, until

#: With guards, where connections age, as on an address that other machines reach.
FRONTS = pytest.mark.parametrize(
    "front", [("grpcio",), ("native",), ("native", "--max-connection-age-s", "3600")], ids=" ".join
)
#: Far more than the tests need; a second signal ends it.
DELAY = ("--shutdown-delay-s", "600", "--workers", "2")

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


def health_of(address: str, service: str = "") -> int:
    """The status of a service, asked as a probe does: on a connection of its own."""
    with channel_to(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = stub.Check(request, timeout=WAIT_S, wait_for_ready=True).status
        return status


def ask(address: str, class_: int) -> int:
    """Asks on a new connection, and tries nothing again."""
    with channel_to(address) as channel:
        return answer(ClassifierStub(channel).Classify(request_for(class_), timeout=WAIT_S))


def signalled(server: ServerProcess) -> None:
    """Sends SIGTERM to a server that serves, and waits until it serves on."""
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("SIGTERM: serving on for 600 s, while health says NOT_SERVING")


def workers(server: ServerProcess) -> list[int]:
    return [
        pid
        for pid in server.worker_pids()
        if b"process.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@FRONTS
def test_new_connections_are_served_after_sigterm_until_the_delay_is_over(
    start_server: StartServer, front: tuple[str, ...]
) -> None:
    http = free_port()
    server = start_server("--front", *front, *DELAY, "--http-port", str(http))
    address = server.wait_until_serving()
    assert health_of(address) == health_of(address, LIVE) == SERVING
    with channel_to(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=WAIT_S
        )
        assert next(watch).status == SERVING
        signalled(server)
        # Each worker has it before the log says so, or right after.
        assert next(watch).status == NOT_SERVING
        for _ in range(8):
            for class_ in range(10):
                assert ask(address, class_) == class_
        # On the connection that was there before, too.
        assert answer(ClassifierStub(channel).Classify(request_for(3), timeout=WAIT_S)) == 3
        assert {health_of(address) for _ in range(8)} == {NOT_SERVING}
        assert health_of(address, "mnist") == NOT_SERVING
        assert health_of(address, LIVE) == SERVING
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/ready", timeout=WAIT_S)
        assert urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/live").status == 200
    # The second signal ends the delay, and kills nobody.
    assert server.terminate() == 0
    assert any("SIGTERM: stopping" in entry["message"] for entry in server.log)
    assert not any("killing" in entry["message"] for entry in server.log)


def test_worker_that_dies_in_the_delay_is_replaced_and_says_that_the_server_leaves(
    start_server: StartServer,
) -> None:
    server = start_server("--front", "grpcio", "--shutdown-delay-s", "600", "--workers", "1")
    address = server.wait_until_serving()
    signalled(server)
    (pid,) = workers(server)
    os.kill(pid, signal.SIGKILL)
    server.wait_for("serving with")
    assert health_of(address) == NOT_SERVING
    assert ask(address, 7) == 7
    assert server.terminate() == 0


def test_delay_ends_by_itself(start_server: StartServer) -> None:
    server = start_server("--shutdown-delay-s", "0.1", "--workers", "1")
    address = server.wait_until_serving()
    assert server.terminate() == 0
    with channel_to(address) as channel, pytest.raises(grpc.RpcError) as refused:
        ClassifierStub(channel).Classify(request_for(1), timeout=WAIT_S)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_server_that_serves_nothing_yet_does_not_wait(models: Path) -> None:
    shutil.rmtree(models / "mnist")
    hanging_bundle(models, 1)
    server = ServerProcess(models, *DELAY)
    until(server.worker_pids, "workers, which load")
    assert server.terminate() == 0
    assert not any("serving on" in entry["message"] for entry in server.log)


def test_server_without_models_is_live_and_not_ready(
    start_server: StartServer, models: Path
) -> None:
    bundle = models / "mnist" / "1"
    removed = models / ".removed"
    bundle.rename(removed)
    server = start_server("--workers", "1", "--scan-s", "0.1")
    address = server.wait_until_serving()
    assert health_of(address) == NOT_SERVING
    assert health_of(address, LIVE) == SERVING
    removed.rename(bundle)
    until(lambda: health_of(address) == SERVING, "ready, with a model")
    bundle.rename(removed)
    until(lambda: health_of(address) == NOT_SERVING, "not ready, without one")
    assert health_of(address, LIVE) == SERVING
