"""The control of a process without a supervisor."""

import queue
from collections.abc import Callable, Mapping
from pathlib import Path

from convserve_server.core.policies import ModelPolicy
from convserve_server.core.preparer import Preparer
from convserve_server.core.repository import ModelLimits, Repository
from convserve_server.engines.base import LoadedModel
from convserve_server.engines.bundles import load_bundle
from convserve_server.engines.loader import EngineOptions, load_engine
from convserve_server.process.local_control import LocalControl
from tests.bundles import write_bundle

LIMITS = ModelLimits(
    max_batch=1,
    max_queue=10,
    max_queue_bytes=1 << 20,
    max_delay_s=0.0,
    max_pixels=1 << 20,
    max_decoder_bytes=1 << 20,
)
WAIT_S = 60.0


class Elsewhere:
    """An inbox that looks empty while another thread has what was in it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[float], object]] = queue.SimpleQueue()
        self.put = self._queue.put
        self.get = self._queue.get

    def empty(self) -> bool:
        return True


def load(name: str, path: Path, batch_s: Mapping[int, float]) -> LoadedModel:
    del name
    return load_bundle(path, lambda path: load_engine(path, EngineOptions("cpu", 1, 1)), batch_s)


def test_scan_ends_when_what_is_new_is_served(tmp_path: Path) -> None:
    control = LocalControl(tmp_path, lambda name: ModelPolicy())
    control._inbox = Elsewhere()  # type: ignore[assignment]
    repository = Repository(lambda name: LIMITS, control.switch, retired=control.on_retired)
    preparer = Preparer(load, repository, control.on_prepared, control.on_failed)
    control.attach(repository, preparer)
    try:
        for version in (1, 2):
            write_bundle(tmp_path, version=version)
            control.scan()
            assert repository.get("mnist", None).description.version == version
    finally:
        control.close(WAIT_S)
        repository.close(WAIT_S)
