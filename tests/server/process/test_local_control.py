"""The control of a process without a supervisor."""

import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convserve_bundle.held_model import Model
from convserve_server.core.administration import VersionState
from convserve_server.core.errors import NotFound
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


def load(name: str, path: Model, batch_s: Mapping[int, float]) -> LoadedModel:
    del name
    return load_bundle(path, lambda path: load_engine(path, EngineOptions("cpu", 1, 1)), batch_s)


def test_administration_loads_and_unloads_what_is_explicit(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    control = LocalControl(tmp_path, lambda name: ModelPolicy(control="explicit"), scan_s=0.01)
    repository = Repository(lambda name: LIMITS, control.switch, retired=control.on_retired)
    control.attach(repository, Preparer(load, repository, control.on_prepared, control.on_failed))
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def states() -> list[tuple[int, VersionState]]:
        control.administration.statuses(answers.put)
        return [(one.version, one.state) for one in answers.get(timeout=WAIT_S)]

    try:
        assert control.wait_to_listen(threading.Event())
        control.watch()
        assert states() == [(1, VersionState.FOUND)]
        control.administration.load("mnist", None, answers.put)
        assert answers.get(timeout=WAIT_S) is None
        assert repository.get("mnist", None).version == 1
        control.administration.set_label("mnist", "stable", 1, answers.put)
        assert answers.get(timeout=WAIT_S) is None
        assert repository.get("mnist", "stable").version == 1
        control.administration.unload("mnist", None, answers.put)
        assert answers.get(timeout=WAIT_S) is None
        assert (1, VersionState.SERVED) not in states()
        control.administration.unload("mnist", None, answers.put)
        assert isinstance(answers.get(timeout=WAIT_S), NotFound)
    finally:
        control.close(WAIT_S)
        repository.close(WAIT_S)


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
