"""The server under signals, deaths and load. Linux: reads /proc, shares ports."""

import collections
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from convserve_host.cpus import available_cpus
from convserve_protos import classifier_pb2 as pb
from convserve_protos.classifier_pb2_grpc import ClassifierStub
from convserve_server.main import check_folder
from convserve_server.settings.setting import SettingError
from tests.bundles import SHAPE, digit_of
from tests.program import Program
from tests.system.conftest import ROOT, WAIT_S, ServerProcess, StartServer


def request_for(class_: int) -> pb.ClassifyRequest:
    height, width, channels = SHAPE
    pixels = pb.Pixels(
        count=1, height=height, width=width, channels=channels, data=digit_of(class_).tobytes()
    )
    return pb.ClassifyRequest(model="mnist", pixels=pixels)


def answer(response: pb.ClassifyResponse) -> int:
    (result,) = response.results
    return int(np.argmax(result.prediction.probabilities))


def channel_to(address: str) -> grpc.Channel:
    """A connection of its own, that retries nothing."""
    return grpc.insecure_channel(
        address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    )


def outcome(call: Any, class_: int) -> str:
    """How a call ended: right, wrong, or the name of its status."""
    try:
        return "right" if answer(call.result(timeout=WAIT_S)) == class_ else "wrong"
    except grpc.RpcError:
        return str(call.code().name)


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_sigterm_with_2000_calls_in_flight_ends_each_with_an_answer_or_unavailable(
    start_server: StartServer, front: str
) -> None:
    server = start_server("--front", front, "--workers", "1")
    with channel_to(server.wait_until_serving()) as channel:
        stub: Any = ClassifierStub(channel)
        answered = threading.Event()
        calls = [stub.Classify.future(request_for(n % 10), timeout=WAIT_S) for n in range(2000)]
        calls[100].add_done_callback(lambda _: answered.set())
        assert answered.wait(WAIT_S)
        server.process.send_signal(signal.SIGTERM)
        outcomes = collections.Counter(outcome(call, n % 10) for n, call in enumerate(calls))
        assert server.wait() == 0
    assert set(outcomes) <= {"right", "UNAVAILABLE"}, outcomes
    assert outcomes["right"] > 100
    assert outcomes.total() == 2000


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_answers_given_just_before_the_end_reach_their_callers(models: Path, front: str) -> None:
    held = [sys.executable, "-m", "tests.system.held_server", str(models), front]
    with Program[str](
        held, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        with channel_to(f"127.0.0.1:{server.stdout.readline().strip()}") as channel:
            stub: Any = ClassifierStub(channel)
            calls = [stub.Classify.future(request_for(n % 10), timeout=WAIT_S) for n in range(1000)]
            # All are in its queue, or in its engine, which it holds until it is about to end.
            print(1000, file=server.stdin, flush=True)
            outcomes = collections.Counter(outcome(call, n % 10) for n, call in enumerate(calls))
        assert server.wait(WAIT_S) == 0
    assert outcomes == {"right": 1000}


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_worker_killed_under_load_is_back_and_calls_on_others_are_unaffected(
    start_server: StartServer, front: str
) -> None:
    server = start_server("--front", front, "--workers", "2")
    address = server.wait_until_serving()
    first, second = server.worker_pids()
    loads = [Load(address) for _ in range(12)]  # all on one worker once in 4,096 runs
    try:
        for load in loads:
            load.wait_for_calls(20)
        os.kill(first, signal.SIGKILL)
        entry = server.wait_for("starting it again")
        assert "status -9" in entry["message"]
        server.wait_for("serving with")
        for load in loads:
            load.wait_for_calls(20)
    finally:
        outcomes = [load.stop() for load in loads]
    assert second in server.worker_pids()
    assert len(server.worker_pids()) == 2
    # Connections stay on one worker: each saw either nothing of it, or its own calls aborted.
    for counts in outcomes:
        assert set(counts) <= {"right", "UNAVAILABLE"}, counts
        assert counts["UNAVAILABLE"] <= Load.IN_FLIGHT
    assert any(counts["UNAVAILABLE"] == 0 for counts in outcomes)
    assert server.terminate() == 0


class Load:
    """A caller with its own connection that keeps a few calls in flight until stopped.

    After calls that were lost it opens another connection. gRPC's client may know that one is gone
    and give it calls all the same, while a write to it is under way; that says nothing of a server.
    """

    IN_FLIGHT = 4

    def __init__(self, address: str) -> None:
        self._address = address
        self._stopped = threading.Event()
        self._progress = threading.Condition()
        self._right = 0
        self.counts: collections.Counter[str] = collections.Counter()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with channel_to(self._address) as channel:
                while not self._stopped.is_set() and self._call_all(ClassifierStub(channel)):
                    pass

    def _call_all(self, stub: Any) -> bool:
        """Make the calls of one round; returns whether all were answered."""
        calls = []
        for class_ in range(self.IN_FLIGHT):
            # A caller whose worker is gone waits for the connection to the other.
            future = stub.Classify.future(request_for(class_), timeout=WAIT_S, wait_for_ready=True)
            calls.append((future, class_))
        ends = [outcome(call, wanted) for call, wanted in calls]
        with self._progress:
            self.counts.update(ends)
            self._progress.notify_all()
        return set(ends) == {"right"}

    def wait_for_calls(self, count: int) -> None:
        """Wait until so many more calls have been answered."""
        with self._progress:
            target = self.counts["right"] + count
            assert self._progress.wait_for(lambda: self.counts["right"] >= target, WAIT_S)

    def stop(self) -> "collections.Counter[str]":
        """End after the calls in flight; returns how all calls ended."""
        self._stopped.set()
        self._thread.join()
        return self.counts


def test_killed_supervisor_leaves_no_worker(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    server.wait_until_serving()
    workers = [os.pidfd_open(pid) for pid in server.worker_pids()]
    server.process.kill()
    for worker in workers:
        assert ended(worker)


def ended(pidfd: int) -> bool:
    """Wait for the end of a process that is not our child."""
    import select

    readable, _, _ = select.select([pidfd], [], [], WAIT_S)
    os.close(pidfd)
    return bool(readable)


def test_port_that_is_taken_is_refused_with_one_line(models: Any, capfd: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ServerProcess(models, "--port", str(port))
        assert server.wait() == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert lines == [
        f"convserve-serve: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another with --host and --port (0: any free one)"
    ]


def test_second_server_on_the_same_port_is_refused(
    start_server: StartServer, models: Any, capfd: Any
) -> None:
    port = start_server().wait_until_serving().rpartition(":")[2]
    second = ServerProcess(models, "--port", port)
    assert second.wait() == 1
    assert "Address already in use" in capfd.readouterr().err


def test_cuda_where_there_is_none_refuses_to_start_and_says_why_once(
    start_server: StartServer, capfd: Any
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    server = start_server("--device", "cuda")
    assert server.wait() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("convserve-serve: device cuda: this onnxruntime has only")
    assert "convserve[gpu]" in line
    assert {entry["level"] for entry in server.log} == {"info"}


def test_workers_for_all_cpus_are_kept_on_one_each_unless_pinning_is_off(
    start_server: StartServer,
) -> None:
    allowed = os.sched_getaffinity(0)
    if available_cpus() != len(allowed):
        pytest.skip("a CPU quota is in force here, so workers are not kept on CPUs")
    server = start_server()
    server.wait_until_serving()
    affinities = [os.sched_getaffinity(pid) for pid in server.worker_pids()]
    assert sorted(affinities, key=min) == [{cpu} for cpu in sorted(allowed)]
    assert server.terminate() == 0
    free = start_server("--pin", "off")
    free.wait_until_serving()
    assert all(os.sched_getaffinity(pid) == allowed for pid in free.worker_pids())


def test_log_says_at_start_what_was_chosen(start_server: StartServer) -> None:
    server = start_server("--engine-threads", "1", "--max-batch", "32")
    server.wait_until_serving()
    assert server.terminate() == 0
    messages = [entry["message"] for entry in server.log]
    assert any(
        "serving with CPUExecutionProvider, 1 engine threads" in message for message in messages
    )
    assert any('"max_batch": 32' in message for message in messages)
    assert any("MiB, workers kept on" in message for message in messages)
    assert not any("no models" in message for message in messages)


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_log_says_at_the_end_how_many_calls_were_answered(
    start_server: StartServer, front: str
) -> None:
    server = start_server("--front", front, "--workers", "1", "--lame-duck-s", "0")
    with channel_to(server.wait_until_serving()) as channel:
        stub: Any = ClassifierStub(channel)
        for number in range(7):
            stub.Classify(request_for(number), timeout=WAIT_S)
        with pytest.raises(grpc.RpcError):
            stub.Classify(pb.ClassifyRequest(model="none"), timeout=WAIT_S)
    assert server.terminate() == 0
    (entry,) = (entry for entry in server.log if "calls answered" in entry["message"])
    assert entry["message"] == "stopped, 8 calls answered, 0 aborted"
    assert (entry["calls"], entry["aborted"]) == (8, 0)


def test_folder_without_models_is_awaited_and_reported_once(models: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    server = ServerProcess(empty, "--workers", "2", "--scan-s", "0.1")
    try:
        server.wait_until_serving()
        (models / "mnist").rename(empty / "mnist")
        server.wait_for("mnist/1 is served by")
    finally:
        assert server.terminate() == 0
    messages = [entry["message"] for entry in server.log if "no models" in entry["message"]]
    assert messages == [f"no models in {empty} yet; waiting for the first"]


def test_folder_that_may_not_be_looked_at_is_refused_with_one_line() -> None:
    class Hidden(type(Path())):  # type: ignore[misc]
        def is_dir(self) -> bool:
            raise PermissionError

    with pytest.raises(SettingError) as caught:
        check_folder(Hidden("/hidden/models"))
    assert str(caught.value) == (
        f"models: expected a folder that user {os.getuid()} may read, got /hidden/models; let it, "
        "or choose another folder"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--max-batch", "4097"],
            "--max-batch: expected a whole number from 0 to 4096, got 4097",
        ),
        (
            ["--models", "/no/such/folder"],
            "models: expected an existing folder, got /no/such/folder; create it, or mount the "
            "volume there",
        ),
    ],
)
def test_bad_setting_is_refused_with_one_line_and_status_2(
    models: Any, capfd: Any, flags: list[str], message: str
) -> None:
    assert ServerProcess(models, *flags).wait() == 2
    assert capfd.readouterr().err == f"convserve-serve: {message}\n"
