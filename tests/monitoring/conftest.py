"""A server under load, for all tests of a session."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest

from convserve_bundle import distributions
from convserve_bundle.stability import MEASURES
from convserve_protos.bundle_pb2 import PictureStatistics
from tests.bundles import write_bundle, write_photo_bundle
from tests.monitoring.loaded_server import load, serving


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    """Prometheus and its tool, which Debian has in one package."""
    for program in ("prometheus", "promtool"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program} here")


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of the metrics page of a server under a little load of all kinds."""
    models = tmp_path_factory.mktemp("models")
    write_bundle(models)
    values = np.linspace(0, 300, 100)
    known = {name: distributions.summarise(values) for name in MEASURES}
    write_photo_bundle(models, statistics=PictureStatistics(**known))
    with serving(models) as server, load(server.address):
        yield server.page
