"""Offline scoring; see `make test-cluster`."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bundles import write_photo_bundle

if TYPE_CHECKING:
    from tests.store.stand_in import StandIn

#: In that environment alone there is something to collect.
collect_ignore_glob = [] if find_spec("pyarrow") else ["test_*.py"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of photographs, whose class is the strongest colour."""
    models = tmp_path_factory.mktemp("models")
    write_photo_bundle(models, version=3)
    return models / "colours"


@pytest.fixture(scope="session")
def stand_in() -> "Iterator[StandIn]":
    from tests.store.stand_in import StandIn

    started = StandIn()
    yield started
    started.stop()


@pytest.fixture
def s3(stand_in: "StandIn", monkeypatch: pytest.MonkeyPatch) -> "Iterator[StandIn]":
    """A stand-in for S3 with an empty bucket, which all processes find by their variables."""
    from tests.store.stand_in import with_bucket

    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    with with_bucket(stand_in):
        yield stand_in
