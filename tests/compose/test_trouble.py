"""What goes wrong around the containers: a line says what to do, and the server serves on."""

import socket
from collections.abc import Callable, Iterator

import pytest

from benchmarks.containers.engine import MAKE_S, until
from benchmarks.containers.stack import OutageClient, Stack

# The first makes the images, and the stack's job trains.
pytestmark = [pytest.mark.compose, pytest.mark.timeout(1.5 * MAKE_S)]

SHORT = ("fit", "digits", "--limit", "500", "--epochs", "1", "--min-accuracy", "0")
READ_ONLY = ("--read-only", "--tmpfs", "/tmp")
INSECURE = ("-e", "CONVSERVE_INSECURE=1")


@pytest.fixture(autouse=True)
def served_throughout(stack: Stack, ask: Callable[..., OutageClient]) -> Iterator[None]:
    """A client asks the server all the while, and the server stays the same process."""
    (server,) = stack.containers("server")
    before = stack.engine.inspect(server)["State"]["Pid"]
    client = ask()
    yield
    assert not client.stop()["failed"]
    assert stack.engine.inspect(server)["State"]["Pid"] == before


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_server_without_a_volume_waits_for_a_model(stack: Stack) -> None:
    name = f"{stack.project}-alone"
    stack.engine.docker("run", "-d", "--name", name, *READ_ONLY, *INSECURE, "convserve-server")
    try:
        until(
            lambda: "no models in /models yet" in stack.engine.log(name),
            "it says that it waits for models",
        )
        stack.engine.docker("stop", "--time", "35", name)
        assert stack.engine.status(name) == 0
    finally:
        stack.engine.docker("rm", "-f", name)


def test_server_that_others_reach_wants_protection(stack: Stack) -> None:
    status, printed = stack.engine.run_alone("convserve-server", options=READ_ONLY)
    assert status == 2
    assert last_line(printed) == (
        "convserve-serve: host: expected TLS (tls_cert), keys (keys) or --insecure for an address "
        "that other machines reach, got 0.0.0.0"
    )


def test_trainer_without_a_volume(stack: Stack) -> None:
    status, printed = stack.engine.run_alone("convserve-trainer", *SHORT, options=READ_ONLY)
    assert status == 1
    assert "Read-only file system" in last_line(printed)
    assert "mount" in last_line(printed)


def test_models_folder_that_is_read_only(stack: Stack) -> None:
    options = ["-v", f"{stack.project}_models:/models:ro", *READ_ONLY]
    status, printed = stack.engine.run_alone("convserve-trainer", *SHORT, options=options)
    assert status == 1
    assert "/models" in last_line(printed)
    assert "Read-only file system" in last_line(printed)
    assert len(printed.strip().splitlines()) <= 3, printed


def test_models_folder_of_another_user(stack: Stack) -> None:
    options = ["--tmpfs", "/models:mode=755", *READ_ONLY]
    status, printed = stack.engine.run_alone("convserve-trainer", *SHORT, options=options)
    assert status == 1
    assert "10001" in last_line(printed)


def test_no_network_is_needed_for_digits(stack: Stack) -> None:
    options = ["--network", "none", *READ_ONLY, "--tmpfs", "/models:uid=10001"]
    status, printed = stack.engine.run_alone("convserve-trainer", *SHORT, options=options)
    assert status == 0, printed
    assert "published" in last_line(printed)


def test_photographs_that_are_not_mounted(stack: Stack) -> None:
    command = ["fit", "photos", "--data", "/data"]
    options = [*READ_ONLY, "--tmpfs", "/models:uid=10001"]
    status, printed = stack.engine.run_alone("convserve-trainer", *command, options=options)
    assert status == 2, printed
    assert "/data" in last_line(printed)


def test_training_out_of_memory_says_so(stack: Stack) -> None:
    limits = ["--memory", "400m", "--memory-swap", "400m"]
    options = [*limits, *READ_ONLY, "--tmpfs", "/models:uid=10001"]
    status, printed = stack.engine.run_alone("convserve-trainer", *SHORT, options=options)
    assert status == 137, printed
    assert "out of memory" in last_line(printed)
    assert "400 MiB" in last_line(printed)


def test_port_that_is_taken(stack: Stack) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        other = Stack(stack.engine, f"{stack.project}-port")
        try:
            done = other.try_compose("up", "-d", "server", CONVSERVE_PORTS=port)
            assert done.returncode != 0
            assert port in done.stdout
            assert "in use" in done.stdout or "allocated" in done.stdout
        finally:
            other.compose("down", "-v")


def test_gpu_file_without_a_gpu(stack: Stack) -> None:
    if "nvidia" in stack.engine.docker("info", "--format", "{{.Runtimes}}"):
        pytest.skip("this engine has NVIDIA's runtime")
    other = Stack(stack.engine, f"{stack.project}-gpu")
    stack.engine.docker("tag", "convserve-server", "convserve-server-gpu")
    try:
        done = other.try_compose(
            "up", "-d", "--no-build", "server", files=["docker-compose.gpu.yml"]
        )
        assert done.returncode != 0
        assert "nvidia" in done.stdout
    finally:
        other.compose("down", "-v")
        stack.engine.docker("rmi", "convserve-server-gpu")


def test_server_that_is_to_use_cuda_without_a_gpu(stack: Stack) -> None:
    status, printed = stack.engine.run_alone(
        "convserve-server", "--device", "cuda", options=[*READ_ONLY, *INSECURE]
    )
    assert status == 1
    assert "device cuda" in last_line(printed)
    assert "convserve[gpu]" in last_line(printed)
