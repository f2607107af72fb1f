"""Envoy, as deploy/envoy/envoy.yaml has it, before three real servers."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.envoy import Envoy, find_envoy, options_before, write_certificate
from benchmarks.harness.fleet import Fleet
from benchmarks.harness.name_server import NameServer
from benchmarks.harness.traffic import Question
from benchmarks.robustness.lost_calls import questions_of
from convserve import Client
from tests.bundles import write_bundle
from tests.clients.scripted_server import ScriptedServer

TIMEOUT_S = 60.0


@pytest.fixture(scope="session")
def program() -> Path:
    found = find_envoy()
    if found is None:
        pytest.skip("there is no Envoy here; make test-envoy installs it")
    return found


@dataclass(frozen=True)
class Edge:
    """An Envoy, the servers behind it, and what they are asked.

    Attributes:
        envoy: as it is shipped, but for ports and files.
        fleet: three servers of the model mnist.
        names: its addresses.
        folder: of the certificate.
        questions: with the right answers.
    """

    envoy: Envoy
    fleet: Fleet
    names: NameServer
    folder: Path
    questions: list[Question]

    @property
    def options(self) -> dict[str, Any]:
        """What a client of Envoy is given."""
        return {"model": "mnist", "timeout": TIMEOUT_S, **options_before(self.folder)}

    def client(self, **more: Any) -> Client:
        """Returns a client that calls Envoy over TLS."""
        return Client(self.envoy.tls_address, **{**self.options, **more})


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


@contextmanager
def new_edge(program: Path, models: Path, folder: Path) -> Iterator[Edge]:
    """Starts three servers, and Envoy before them.

    Args:
        program: Envoy.
        models: that they serve.
        folder: for files.
    """
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(models, ["--workers", "1"]))
        names = stack.enter_context(NameServer([Fleet.host(number) for number in range(3)]))
        for number in range(3):
            fleet.start(number)
        write_certificate(folder)
        envoy = stack.enter_context(Envoy(program, folder, names.address, fleet.port))
        yield Edge(envoy, fleet, names, folder, questions_of(Bundle.newest(models, "mnist")))


@pytest.fixture(scope="session")
def edge(program: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """For tests that change nothing of it."""
    with new_edge(program, models, tmp_path_factory.mktemp("envoy")) as edge:
        yield edge


class StartEnvoy(Protocol):
    def __call__(self, address: str, changes: Mapping[str, str] | None = None) -> Envoy: ...


@pytest.fixture
def start_envoy(program: Path, tmp_path: Path) -> Iterator[StartEnvoy]:
    """Starts one with changes before one server at an address; its files are in tmp_path."""
    with ExitStack() as stack:

        def start(address: str, changes: Mapping[str, str] | None = None) -> Envoy:
            host, _, port = address.rpartition(":")
            names = stack.enter_context(NameServer([host]))
            write_certificate(tmp_path)
            envoy = Envoy(program, tmp_path, names.address, int(port), changes)
            return stack.enter_context(envoy)

        yield start


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server whose answers the test decides, and that Envoy finds healthy."""
    server = ScriptedServer()
    server.health["convserve.v1.Classifier"] = server.health[""]
    yield server
    server.stop()
