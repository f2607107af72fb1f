"""Models on object storage, on a stand-in for S3; see `make test-store`."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from convserve_store.bundles import BundleStore
    from tests.store.stand_in import StandIn

#: In that environment alone there is something to collect.
collect_ignore_glob = [] if find_spec("moto") else ["test_*.py"]


@pytest.fixture(scope="session")
def s3() -> "Iterator[StandIn]":
    from tests.store.stand_in import StandIn

    stand_in = StandIn()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def stand_in(s3: "StandIn", monkeypatch: pytest.MonkeyPatch) -> "Iterator[StandIn]":
    """A stand-in with an empty bucket, which this process finds by its variables."""
    from tests.store.stand_in import with_bucket

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with with_bucket(s3):
        yield s3


@pytest.fixture
def url() -> str:
    return "s3://convserve-test/models"


@pytest.fixture
def store(stand_in: "StandIn", url: str) -> "BundleStore":
    from convserve_store.bundles import BundleStore
    from convserve_store.location import open_location

    return BundleStore(open_location(url, "models"))
