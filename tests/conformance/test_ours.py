"""Our server keeps to the protocol, over both transports and over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.ports import free_port
from tests.bundles import write_bundle
from tests.conformance.__main__ import NAMES, over_grpc, over_http
from tests.conformance.served_models import write_all
from tests.conformance.suite import Result, Verdict
from tests.conformance.tensors import DATATYPES
from tests.system.conftest import ServerProcess

#: Seconds for an answer: the machine may be busy.
LIMIT_S = 20.0
PICTURES = "mnist"
#: Models of texts are refused by our server, with a reason.
ABSENT = {"no model that repeats BYTES"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conformance") / "models"
    write_all(folder, [each for each in DATATYPES if each != "BYTES"])
    write_bundle(folder, PICTURES)
    return folder


@pytest.fixture(scope="module", params=["grpcio", "native"])
def addresses(request: pytest.FixtureRequest, models: Path) -> Iterator[tuple[str, str]]:
    server = ServerProcess(
        models, "--front", request.param, "--workers", "2", "--http-port", str(free_port())
    )
    try:
        http = server.wait_for("HTTP on")["http_address"]
        yield server.wait_until_serving(), http
    finally:
        server.process.kill()
        server.wait()


def test_over_grpc(addresses: tuple[str, str]) -> None:
    check(list(over_grpc(addresses[0], [*NAMES, PICTURES], LIMIT_S, PICTURES)), 190)


def test_over_http(addresses: tuple[str, str]) -> None:
    check(list(over_http(addresses[1], [*NAMES, PICTURES], LIMIT_S)), 220)


def check(results: list[Result], least: int) -> None:
    """No case fails, and only those of texts do not apply.

    Args:
        results: of all cases.
        least: how many have to have passed.
    """
    wrong = [each for each in results if each.verdict is Verdict.FAILED]
    assert [f"{each.group}: {each.name}: {each.detail}" for each in wrong] == []
    absent = {each.detail for each in results if each.verdict is Verdict.NOT_APPLICABLE}
    assert absent == ABSENT
    assert sum(each.verdict is Verdict.PASSED for each in results) > least
