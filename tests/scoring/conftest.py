"""Offline scoring; see `make test-cluster`."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.bundles import write_photo_bundle

#: In that environment alone there is something to collect.
collect_ignore_glob = [] if find_spec("pyarrow") else ["test_*.py"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of photographs, whose class is the strongest colour."""
    models = tmp_path_factory.mktemp("models")
    write_photo_bundle(models, version=3)
    return models / "colours"
