"""The stack of docker-compose.yml on a real engine: a running one, or one that is started here."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.containers.engine import MAKE_S, Engine, run, until
from benchmarks.containers.stack import ROOT, OutageClient, Stack

#: Starts an engine where none runs ("start", prints a line to export), and stops it ("stop").
ENGINE = Path(
    os.environ.get("CONVSERVE_TEST_ENGINE", ROOT.parent / "shared" / "docker" / "engine.sh")
)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A container engine that runs."""
    found = Engine()
    if found.runs:
        yield found
        return
    if not ENGINE.exists():
        pytest.skip(f"no container engine runs, and there is no {ENGINE} to start one")
    started = run([ENGINE, "start"], found.environ, timeout_s=MAKE_S)
    lines = started.stdout.splitlines()
    hosts = [line for line in lines if line.startswith("export DOCKER_HOST=")]
    if started.returncode or not hosts:
        pytest.skip(f"no container engine can be started: {started.stdout[-500:]}")
    yield Engine({**os.environ, "DOCKER_HOST": hosts[-1].partition("=")[2]})
    run([ENGINE, "stop"], found.environ)


@pytest.fixture(scope="session")
def stack(engine: Engine) -> Iterator[Stack]:
    """Images built, the stack up, its two jobs done."""
    stack = Stack(engine, f"convserve-test-{os.getpid()}")
    stack.compose("build")
    try:
        stack.compose("up", "-d")
        until(lambda: bool(stack.containers("client")), "there is a client")
        engine.docker("wait", *stack.containers("trainer"), *stack.containers("client"))
        yield stack
    finally:
        print(stack.try_compose("down", "-v", "--timeout", "1").stdout)


@pytest.fixture
def ask(stack: Stack) -> Iterator[Callable[..., OutageClient]]:
    """Start clients, and wait until they have an answer, or as many as their options state."""
    clients: list[OutageClient] = []

    def start(*options: str) -> OutageClient:
        clients.append(OutageClient(stack, *options))
        clients[-1].wait_until_answered()
        return clients[-1]

    yield start
    for client in clients:
        client.remove()
