"""Workers that die or hang, and what takes away the ground below a server. Linux: reads /proc."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.ports import free_port
from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from tests import bundles
from tests.bundles import manifest, write_bundle
from tests.system.conftest import WAIT_S, ServerProcess, StartServer
from tests.system.test_serving import answer, channel_to, request_for

FRONTS = pytest.mark.parametrize("front", ["grpcio", "native"])


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what comes sooner or later."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@contextmanager
def calls(address: str) -> Iterator[Callable[[], int]]:
    """Asks again and again on new connections, as different clients do; all must be right.

    A connection that was with a worker when it ended is made anew once, as gRPC's clients do.

    Yields: how many were answered so far.
    """
    stop = threading.Event()
    answered = 0
    faults: list[str] = []

    def ask() -> None:
        with channel_to(address) as channel:
            stub: Any = ClassifierStub(channel)
            response = stub.Classify(request_for(3), timeout=WAIT_S, wait_for_ready=True)
        assert answer(response) == 3
        assert response.version == 1

    def run() -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                ask()
            except grpc.RpcError as first:
                if first.code() != grpc.StatusCode.UNAVAILABLE:
                    faults.append(str(first))
                    return
                try:
                    ask()
                except (grpc.RpcError, AssertionError) as second:
                    faults.append(str(second))
                    return
            except AssertionError as wrong:
                faults.append(str(wrong))
                return
            answered += 1
            stop.wait(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: answered
    finally:
        stop.set()
        thread.join()
    assert faults == []


def hanging_bundle(models: Path, version: int) -> None:
    """Publish a version of mnist that never answers: a loop of 2**62 turns."""
    metadata = {"convserve.manifest": json_format.MessageToJson(manifest())}
    model = bundles.model(metadata)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_out"]),
            helper.make_node("Identity", ["value"], ["value_out"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", TensorProto.FLOAT, None),
        ],
    )
    graph = model.graph
    graph.node[-1].output[0] = "before"
    graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "turns"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.node.append(
        helper.make_node("Loop", ["turns", "yes", "before"], ["probabilities"], body=body)
    )
    hidden = models / "mnist" / f".{version}.tmp"
    hidden.mkdir(parents=True)
    onnx.save(model, hidden / "model.onnx")
    hidden.rename(models / "mnist" / str(version))


def listed(address: str) -> list[int]:
    """The versions that one worker serves."""
    with channel_to(address) as channel:
        stub: Any = ClassifierStub(channel)
        response = stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S)
    return [model.version for model in response.models]


@FRONTS
def test_version_that_ends_its_worker_is_refused_and_the_old_one_serves_on(
    start_server: StartServer, models: Path, front: str
) -> None:
    server = start_server(
        "--front", front, "--workers", "2", "--scan-s", "0.1", "--log-level", "debug"
    )
    address = server.wait_until_serving()
    with calls(address) as answered:
        hanging_bundle(models, 2)
        entry = server.wait_for("loads mnist/2")
        os.kill(entry["pid"], signal.SIGSEGV)
        message = server.wait_for("mnist/2 is not served")["message"]
        assert "the worker that loaded it ended with status -11" in message
        server.wait_for("serving with")
        before = answered()
        until(lambda: answered() >= before + 20, "calls")
    assert len(server.worker_pids()) == 2
    # It was tried once, by one worker, and the one that was started again knows.
    loads = [e for e in server.log if e["message"].endswith("loads mnist/2")]
    assert len(loads) == 1
    assert [e["level"] for e in server.log if "mnist/2 is not served" in e["message"]] == ["error"]
    assert server.terminate() == 0


def test_version_that_hangs_while_it_loads_is_refused_and_the_old_one_serves_on(
    start_server: StartServer, models: Path
) -> None:
    server = start_server("--workers", "2", "--scan-s", "0.1", "--load-timeout-s", "5")
    address = server.wait_until_serving()
    with calls(address) as answered:
        hanging_bundle(models, 2)
        message = server.wait_for("mnist/2 is not served")["message"]
        assert "the worker that loaded it did not finish loading mnist/2 in 5 s" in message
        server.wait_for("serving with")
        before = answered()
        until(lambda: answered() >= before + 20, "calls")
    write_bundle(models, "mnist", 3)
    for _ in range(2):
        server.wait_for("mnist/3 is served by")
    with channel_to(address) as channel:
        stub: Any = ClassifierStub(channel)
        (refused,) = stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S).refused
    assert (refused.name, refused.version) == ("mnist", 2)
    assert refused.reason.startswith("the worker that loaded it did not finish loading")
    assert server.terminate() == 0


def test_newest_version_that_hangs_at_the_start_gives_way_to_an_older_one(
    start_server: StartServer, models: Path
) -> None:
    hanging_bundle(models, 2)
    server = start_server("--workers", "2", "--scan-s", "0.1", "--load-timeout-s", "5")
    address = server.wait_until_serving()
    # Workers wait for a model before they listen, but not for ever: this machine may be busy.
    until(lambda: all(listed(address) == [1] for _ in range(8)), "the older one")
    assert server.terminate() == 0


def test_command_line_of_a_worker_shows_no_setting(start_server: StartServer, models: Path) -> None:
    server = start_server("--workers", "2", "--max-queue", "4321")
    server.wait_until_serving()
    for pid in server.worker_pids():
        line = Path(f"/proc/{pid}/cmdline").read_text()
        *command, descriptor, end = line.split("\0")
        assert command == [sys.executable, "-m", "convserve_server.process.worker"]
        assert descriptor.isdigit()
        assert end == ""
        assert "4321" not in line
        assert str(models) not in line
    assert server.terminate() == 0


@FRONTS
def test_worker_that_hangs_is_replaced(start_server: StartServer, front: str) -> None:
    server = start_server("--front", front, "--workers", "2", "--heartbeat-s", "5")
    server.wait_until_serving()
    first, second = server.worker_pids()
    os.kill(first, signal.SIGSTOP)
    message = server.wait_for("gave no sign of life")["message"]
    assert message.endswith("s: killed")
    server.wait_for("serving with")
    assert second in server.worker_pids()
    assert first not in server.worker_pids()
    assert server.terminate() == 0


def test_server_that_was_paused_as_a_whole_loses_no_worker(start_server: StartServer) -> None:
    server = start_server("--workers", "2", "--heartbeat-s", "4")
    address = server.wait_until_serving()
    pids = server.worker_pids()
    everything = [server.process.pid, *pids]
    for pid in everything:
        os.kill(pid, signal.SIGSTOP)
    # Longer than a heartbeat: nothing tells that a process has been stopped for so long.
    time.sleep(6)
    for pid in everything:
        os.kill(pid, signal.SIGCONT)
    for _ in range(20):
        assert listed(address) == [1]
    assert server.worker_pids() == pids
    assert server.terminate() == 0
    assert not any("killed" in entry["message"] for entry in server.log)


def test_worker_that_hangs_when_the_server_stops_does_not_hold_it_up(
    start_server: StartServer,
) -> None:
    server = start_server("--workers", "2", "--heartbeat-s", "5", "--grace-s", "3600")
    server.wait_until_serving()
    os.kill(server.worker_pids()[0], signal.SIGSTOP)
    assert server.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server("--workers", "1")
    address = server.wait_until_serving()
    with channel_to(address) as channel:
        stub: Any = ClassifierStub(channel)
        stub.Classify(request_for(1), timeout=WAIT_S)
        server.process.send_signal(number)
        assert server.wait() == 0
    assert any(f"{number.name}: stopping" in entry["message"] for entry in server.log)
    assert any("1 calls answered, 0 aborted" in entry["message"] for entry in server.log)


def test_hangup_is_ignored_under_nohup(start_server: StartServer) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = start_server("--workers", "1")
    finally:
        signal.signal(signal.SIGHUP, before)
    address = server.wait_until_serving()
    server.process.send_signal(signal.SIGHUP)
    assert listed(address) == [1]
    assert server.terminate() == 0
    assert not any("SIGHUP" in entry["message"] for entry in server.log)


EARLY = """
import os, signal, sys
class Signal:
    def find_spec(self, name, path=None, target=None):
        if name == "convserve_server.main":  # the first import that takes time
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Signal())
sys.argv[1:] = ["--models", sys.argv[1], "--port", "0"]
from convserve_server.__main__ import run
sys.exit(run())
"""


def test_signal_that_comes_while_the_program_is_being_read_counts(models: Path) -> None:
    ends = subprocess.run(
        [sys.executable, "-c", EARLY, str(models)], stdout=subprocess.PIPE, timeout=WAIT_S
    )
    assert ends.returncode == 0
    assert b"SIGTERM: stopping" in ends.stdout


@FRONTS
def test_server_needs_no_temporary_folder(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, front: str
) -> None:
    temporary = tmp_path / ("t" * 120)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    server = ServerProcess(models, "--front", front, "--workers", "2")
    try:
        address = server.wait_until_serving()
        assert list(temporary.iterdir()) == []
        temporary.rmdir()
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        for _ in range(2):
            server.wait_for("serving with")
        with channel_to(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            until(lambda: is_serving(health), "health")
        assert server.terminate() == 0
    finally:
        server.process.kill()
        server.wait()


def is_serving(health: Any) -> bool:
    try:
        response = health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
    except grpc.RpcError:
        return False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def test_log_that_nobody_reads_stops_neither_supervision_nor_the_end(models: Path) -> None:
    reader, writer = os.pipe()
    port = free_port()
    with subprocess.Popen(
        [
            sys.executable, "-I", "-m", "convserve_server.main", "--models", str(models),
            "--port", str(port), "--workers", "2",
        ],
        stdout=writer,
    ) as process:  # fmt: skip
        try:
            printed = b""
            while b"listening on" not in printed:
                printed += os.read(reader, 4096)
            fill(writer)
            before = children(process.pid)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            until(lambda: len(set(children(process.pid)) - set(before)) == 2, "new workers")
            with channel_to(f"127.0.0.1:{port}") as channel:
                stub: Any = ClassifierStub(channel)
                response = stub.Classify(request_for(3), timeout=WAIT_S, wait_for_ready=True)
            assert answer(response) == 3
            process.terminate()
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
            os.close(reader)
            os.close(writer)


def fill(pipe: int) -> None:
    """Fill a pipe, by a description of its own, so that other writers still wait."""
    other = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            while select.select([], [other], [], 0)[1]:
                try:
                    os.write(other, b"x" * size)
                except BlockingIOError:
                    break
    finally:
        os.close(other)


def children(pid: int) -> list[int]:
    """Living processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split() if state(int(child)) != "Z"]


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_server_without_file_descriptors_goes_on_and_starts_its_worker_later(
    start_server: StartServer,
) -> None:
    server = start_server("--workers", "2")
    address = server.wait_until_serving()
    pid = server.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    count = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count - 3, usual[1]))
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    assert "Too many open files" in server.wait_for("cannot be started")["message"]
    assert listed(address) == [1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    server.wait_for("serving with")
    assert len(server.worker_pids()) == 2
    assert server.terminate() == 0


def test_as_many_file_descriptors_are_allowed_as_the_system_grants(
    start_server: StartServer,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        server = start_server("--workers", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    server.wait_until_serving()
    for pid in (server.process.pid, *server.worker_pids()):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)
    assert server.terminate() == 0


def test_connections_beyond_the_limit_of_descriptors_are_reported_and_harm_no_other(
    start_server: StartServer,
) -> None:
    server = start_server("--workers", "1", "--heartbeat-s", "600")
    address = server.wait_until_serving()
    (pid,) = server.worker_pids()
    host, _, port = address.rpartition(":")
    with channel_to(address) as channel:
        stub: Any = ClassifierStub(channel)
        stub.Classify(request_for(3), timeout=WAIT_S)
        count = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count + 12, count + 12))
        idle = [socket.create_connection((host, int(port))) for _ in range(40)]
        server.wait_for("no file descriptors are left")
        # Who was connected is served, and so is everybody once others have left.
        assert answer(stub.Classify(request_for(4), timeout=WAIT_S)) == 4
        for connection in idle:
            connection.close()
        server.wait_for("there are file descriptors for new connections again")
        assert listed(address) == [1]
    assert server.terminate() == 0


def test_file_replaced_in_place_leaves_one_model_under_one_name(
    start_server: StartServer, models: Path
) -> None:
    server = start_server("--workers", "2", "--scan-s", "0.1")
    address = server.wait_until_serving()
    other = bundles.write_photo_bundle(models.parent / "other", "mnist")
    (models / "mnist" / "1" / "model.onnx").write_bytes(other.read_bytes())
    server.wait_for("mnist/1: its file was replaced")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_for(
        "accepts no calls until it has each model that the other workers serve: mnist cannot be"
    )
    for class_ in range(10):
        with channel_to(address) as channel:
            stub: Any = ClassifierStub(channel)
            assert answer(stub.Classify(request_for(class_), timeout=WAIT_S)) == class_
    replaced = [e for e in server.log if "its file was replaced" in e["message"]]
    assert len(replaced) == 1
    assert server.terminate() == 0


def test_restarts_do_not_wait_for_long_while_nobody_serves(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    server.wait_until_serving()
    for _ in range(5):
        pids = server.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for _ in pids:
            server.wait_for("starting it again")
        server.wait_for("serving with")
    waits = [
        float(entry["message"].split(" in ")[-1].removesuffix(" s"))
        for entry in server.log
        if "starting it again in" in entry["message"]
    ]
    # Of the two that die together, the second one leaves nobody.
    assert max(waits[1::2]) <= 0.5
    assert server.terminate() == 0


def test_root_that_cannot_be_written_and_has_no_temporary_folder_is_enough(models: Path) -> None:
    script = (
        "mount --make-rprivate / && mount -o remount,bind,ro / && "
        'exec "$0" -I -m convserve_server.main --models "$1" --port 0 --workers 1'
    )
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, str(models)]
    if os.getuid() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    environment = {**os.environ, "TMPDIR": "/no/such/folder"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/", env=environment) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, b"")
            assert any(b"listening on" in line for line in lines)
            process.terminate()
            process.stdout.read()
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
