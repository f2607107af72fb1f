"""Our server keeps to the protocol, over both transports and over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import write_bundle
from tests.conformance.__main__ import NAMES, over_grpc
from tests.conformance.served_models import write_all
from tests.conformance.suite import Verdict
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
    server = ServerProcess(models, "--front", request.param, "--workers", "2")
    try:
        yield server.wait_until_serving(), ""
    finally:
        server.process.kill()
        server.wait()


def test_over_grpc(addresses: tuple[str, str]) -> None:
    results = list(over_grpc(addresses[0], [*NAMES, PICTURES], LIMIT_S, PICTURES))
    wrong = [each for each in results if each.verdict is Verdict.FAILED]
    assert [f"{each.group}: {each.name}: {each.detail}" for each in wrong] == []
    absent = {each.detail for each in results if each.verdict is Verdict.NOT_APPLICABLE}
    assert absent == ABSENT
    assert sum(each.verdict is Verdict.PASSED for each in results) > 190
