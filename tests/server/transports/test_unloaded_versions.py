"""Nothing that calls leave behind keeps a version in memory that is unloaded."""

import gc
import time
import weakref
from collections.abc import Iterator

import pytest

from convserve_server.process.local_control import LocalControl
from tests.jpegs import jpeg_of
from tests.server.conftest import WAIT_S, Serve, answers, request_for
from tests.server.core.test_image_files_call import request_of


@pytest.fixture
def without_collection() -> Iterator[None]:
    """What is freed is freed because nothing refers to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("photos", [False, True], ids=["pixels", "files"])
def test_version_that_was_asked_is_free_when_it_is_unloaded(
    serve: Serve, front: str, photos: bool, without_collection: None
) -> None:
    served = serve(front, photos=photos, scan_s=3600.0)
    name = "colours" if photos else "mnist"
    request = request_of(jpeg_of("red")) if photos else request_for(3)
    control = served.worker.control
    assert isinstance(control, LocalControl)
    version = weakref.ref(served.worker.repository.get(name, None))
    for _ in range(3):
        assert len(answers(served.classify(request).result())) == 1
    folder = served.models / name
    (folder / "1").rename(folder / "2")
    end = time.monotonic() + WAIT_S
    while served.worker.repository.get(name, None).version != 2:
        assert time.monotonic() < end
        control.scan()
    # What the transport holds of its last call is of the new version after this one.
    assert served.classify(request).result().version == 2
    while version() is not None:
        assert time.monotonic() < end, gc.get_referrers(version())
        time.sleep(0.001)
