"""The repository and what loads it, over folders whose files say how their loading goes."""

import dataclasses
import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format

from convserve_bundle.contract import MANIFEST_KEY
from convserve_bundle.held_model import Model
from convserve_protos.bundle_pb2 import Manifest
from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.digests import Content, Digests
from convserve_server.core.errors import (
    Cancelled,
    ModelIdle,
    NotFound,
    NotReady,
    QueueFull,
    ServeError,
)
from convserve_server.core.models import ModelVersion, VersionChoice
from convserve_server.core.policies import ModelPolicy, VersionPolicy
from convserve_server.core.preparer import Preparer
from convserve_server.core.repository import ModelLimits, Repository
from convserve_server.core.tables import Bundle, ServedModel, Table
from convserve_server.engines.base import (
    NOT_MEASURED,
    Engine,
    EngineError,
    LoadedModel,
    Pixels,
    Probabilities,
)
from convserve_server.engines.bundles import load_bundle
from convserve_server.engines.loader import EngineOptions, load_engine
from convserve_server.engines.output_check import probes
from convserve_server.host.spare_cpus import SpareCpus
from convserve_server.process.local_control import LocalControl
from tests.bundles import CLASSES, SHAPE, digit_of, manifest, write_bundle

PATIENCE_S = 60.0


class FakeEngine:
    """Gives rows that tell its version; waits for its gate before each run once it serves."""

    provider = "FakeExecutionProvider"
    image_shape = SHAPE
    classes = CLASSES
    max_batch = 4
    parallel = 1
    spare: SpareCpus | None = None

    def __init__(self, version: int, metadata: dict[str, str], gate: threading.Event) -> None:
        self.metadata = metadata
        self.warm = False
        self.entered = threading.Event()
        self.sizes: list[int] = []
        self._version = version
        self._gate = gate

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        assert self.warm
        count = sum(len(slice_) for slice_ in images)
        rows = np.zeros((count, CLASSES), np.float32)
        rows[:, 0] = self._version / 100
        rows[:, 1] = 1 - self._version / 100
        if np.array_equal(np.concatenate(images), probes(SHAPE)):
            return rows
        self.sizes.append(count)
        self.entered.set()
        assert self._gate.wait(PATIENCE_S)
        return rows

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        self.warm = True
        return batch_s


class OddEngine(FakeEngine):
    """Gives rows that are not probabilities."""

    def __init__(
        self, row: Sequence[float], metadata: dict[str, str], gate: threading.Event
    ) -> None:
        super().__init__(1, metadata, gate)
        self._row = row

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        return np.array([self._row] * sum(map(len, images)), np.float32)


#: Rows by the content of the file.
ODD = {
    "nan": [np.nan] * CLASSES,
    "logits": [20.0, *[0.0] * (CLASSES - 1)],
    "sums": [0.5] * CLASSES,
}


class ColdEngine(FakeEngine):
    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        raise MemoryError("no memory for the arena")


class Models:
    """A models folder, and the loader of its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        #: Versions in the order in which they were tried.
        self.tried: list[str] = []
        self.engines: dict[str, FakeEngine] = {}
        #: Names of all models after each change.
        self.changes: list[set[str]] = []
        #: Called when a file is loaded, on the thread that loads.
        self.on_load: Callable[[str], None] = lambda version: None
        self.gate = threading.Event()
        self.gate.set()

    def put(self, bundle: str, content: str = "good") -> None:
        """Publish NAME/VERSION, or write it anew."""
        file = self.folder / bundle / "model.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def remove(self, bundle: str) -> None:
        folder = self.folder / bundle
        (folder / "model.onnx").unlink()
        folder.rmdir()

    def load(self, path: Path) -> FakeEngine:
        bundle = str(path.parent.relative_to(self.folder))
        self.tried.append(bundle)
        self.on_load(bundle)
        content = path.read_text()
        if content == "garbage":
            raise EngineError(f"{path}: is garbage")
        if content == "surprise":
            raise RuntimeError("never seen before")
        written = manifest()
        if content == "contradicting":
            written.labels.append("one more")
        kind = ColdEngine if content == "cold" else FakeEngine
        metadata = {MANIFEST_KEY: json_format.MessageToJson(written)}
        if content in ODD:
            return OddEngine(ODD[content], metadata, self.gate)
        engine = kind(int(path.parent.name), metadata, self.gate)
        self.engines[bundle] = engine
        return engine


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path / "models")


class Served:
    """A repository and what loads the models folder into it, as a worker has them."""

    def __init__(
        self,
        models: Models,
        limits: ModelLimits,
        versions: VersionPolicy,
        load_engine: Callable[[Path], Engine],
        unload_after_s: float = 0.0,
    ) -> None:
        def load(name: str, path: Model, batch_s: Mapping[int, float]) -> LoadedModel:
            assert isinstance(path, Path)
            assert name == path.parent.parent.name
            return load_bundle(path, load_engine, batch_s)

        policy = ModelPolicy(versions=versions, unload_after_s=unload_after_s)
        self.control = LocalControl(models.folder, lambda name: policy, scan_s=0.001)
        self.repository = Repository(
            lambda name: limits,
            self.control.switch,
            lambda names: models.changes.append(set(names)),
            self.control.on_retired,
            wake=self.control.on_wanted,
        )
        preparer = Preparer(load, self.repository, self.control.on_prepared, self.control.on_failed)
        self.control.attach(self.repository, preparer)
        self.get = self.repository.get
        self.models = self.repository.models
        self.scan = self.control.scan
        self.watch = self.control.watch
        self.wait_for_news = self.control.wait

    def refused(self) -> dict[tuple[str, int], str]:
        """What the repository answers."""
        return dict(self.repository.refused())

    def close(self, timeout_s: float) -> None:
        self.control.close(timeout_s)
        self.repository.close(timeout_s)


LIMITS = ModelLimits(
    max_batch=8,
    max_queue=100,
    max_queue_bytes=1 << 30,
    max_delay_s=0.0,
    max_pixels=1 << 20,
    max_decoder_bytes=1 << 28,
)

Make = Callable[..., Served]


@pytest.fixture
def make(models: Models) -> Iterator[Make]:
    """Makes repositories, and closes them and all that they ever loaded."""
    made: list[Served] = []

    def make(
        versions: VersionPolicy = 1,
        load_engine: Callable[[Path], Engine] = models.load,
        max_queue: int = 100,
        max_queue_bytes: int = 1 << 30,
        unload_after_s: float = 0.0,
    ) -> Served:
        repository = Served(
            models,
            dataclasses.replace(LIMITS, max_queue=max_queue, max_queue_bytes=max_queue_bytes),
            versions,
            load_engine,
            unload_after_s,
        )
        made.append(repository)
        return repository

    yield make
    models.gate.set()
    for repository in made:
        repository.close(PATIENCE_S)
        for model in repository.models():
            assert model.batcher.join(0)


@pytest.fixture
def repository(make: Make) -> Served:
    return make()


class Kept:
    """Keeps the outcome of a request."""

    def __init__(self) -> None:
        self._outcome: queue.SimpleQueue[Answer | ServeError] = queue.SimpleQueue()
        self.put = self._outcome.put

    def request_of(self, count: int) -> BatchRequest:
        return BatchRequest(np.zeros((count, *SHAPE), np.uint8), None, self.put)

    def outcome(self) -> Answer | ServeError:
        return self._outcome.get(timeout=PATIENCE_S)

    def answered_by(self) -> int:
        """The version that answered."""
        outcome = self.outcome()
        assert isinstance(outcome, Answer), outcome
        return round(100 * float(outcome.rows[0, 0]))


class Caller(Kept):
    """Sends a request of some images to a model version."""

    def __init__(self, model: ModelVersion, count: int = 1) -> None:
        super().__init__()
        self.request = self.request_of(count)
        model.batcher.submit(self.request)


class LateWork:
    """Work on a model of which the version may be unloaded meanwhile."""

    def __init__(self, repository: Repository) -> None:
        self.model = "mnist"
        self.version: VersionChoice = None
        self.deadline: float | None = None
        self.restarted = False
        self.kept = Kept()
        self.started_on: list[ModelVersion] = []
        #: Whether the request was queued, of each start, the last one first.
        self.queued: list[bool] = []
        self._repository = repository

    def start(self, model: ModelVersion) -> None:
        self.started_on.append(model)
        self.queued.append(self._repository.enqueue(self, model, self.kept.request_of(1)))

    @property
    def held_bytes(self) -> int:
        return 1

    def fail(self, error: ServeError) -> None:
        self.kept.put(error)


def loaded(repository: Served) -> list[str]:
    return [f"{model.name}/{model.version}" for model in repository.models()]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what another thread brings about."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def scan_until(repository: Served, expected: list[str]) -> None:
    """Scan as the thread that watches does, until these are loaded."""
    end = time.monotonic() + PATIENCE_S
    while loaded(repository) != expected:
        assert time.monotonic() < end, loaded(repository)
        repository.wait_for_news(0.01)
        repository.scan()


# What is served


def test_empty_folder_serves_nothing_and_says_so(repository: Served, models: Models) -> None:
    repository.scan()
    assert repository.models() == []
    assert models.changes == []
    with pytest.raises(NotFound, match="no model 'mnist'; loaded: none"):
        repository.get("mnist", None)


def test_newest_version_of_each_model_is_served_warm(repository: Served, models: Models) -> None:
    for bundle in ("mnist/2", "mnist/10", "mnist/9", "cats/1"):
        models.put(bundle)
    repository.scan()
    assert loaded(repository) == ["cats/1", "mnist/10"]
    assert sorted(models.tried) == ["cats/1", "mnist/10"]
    model = repository.get("mnist", None)
    assert (model.name, model.version) == ("mnist", 10)
    assert Manifest.FromString(model.description.manifest) == manifest()
    assert Caller(model).answered_by() == 10
    assert repository.get("mnist", 10) is model


def test_unknown_model_is_not_found_and_says_which_there_are(
    repository: Served, models: Models
) -> None:
    models.put("mnist/1")
    models.put("cats/1")
    repository.scan()
    with pytest.raises(NotFound) as caught:
        repository.get("dogs", None)
    assert str(caught.value) == "no model 'dogs'; loaded: cats, mnist"


def test_unknown_version_is_not_found_and_says_which_there_are(make: Make, models: Models) -> None:
    repository = make(versions=2)
    for bundle in ("mnist/9", "mnist/10", "mnist/8"):
        models.put(bundle)
    repository.scan()
    with pytest.raises(NotFound) as caught:
        repository.get("mnist", 8)
    assert str(caught.value) == "model mnist has no version 8; loaded: 9, 10"


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ("all", ["mnist/4", "mnist/2", "mnist/1"]),
        ((1, 3), ["mnist/1"]),
        ((1, 4), ["mnist/4", "mnist/1"]),
        ((7,), []),
        (2, ["mnist/4", "mnist/2"]),
    ],
)
def test_versions_that_the_operator_wants_are_served_but_for_one_that_cannot_be(
    make: Make, models: Models, versions: VersionPolicy, expected: list[str]
) -> None:
    repository = make(versions=versions)
    for bundle in ("mnist/1", "mnist/2", "mnist/4"):
        models.put(bundle)
    models.put("mnist/3", "garbage")
    repository.scan()
    assert loaded(repository) == expected
    # Those that nobody wants are not even tried.
    assert set(models.tried) - {"mnist/3"} == set(expected)
    for bundle in expected[:1]:
        models.remove(bundle)
    repository.scan()
    left = {"all": expected[1:], 2: ["mnist/2", "mnist/1"]}
    assert loaded(repository) == left.get(versions, expected[1:])


def test_two_versions_are_served_newest_first(make: Make, models: Models) -> None:
    repository = make(versions=2)
    for bundle in ("mnist/1", "mnist/2", "mnist/3"):
        models.put(bundle)
    repository.scan()
    assert loaded(repository) == ["mnist/3", "mnist/2"]
    assert Caller(repository.get("mnist", None)).answered_by() == 3
    assert Caller(repository.get("mnist", 2)).answered_by() == 2
    kept = repository.get("mnist", 3)
    models.put("mnist/4")
    repository.scan()
    assert loaded(repository) == ["mnist/4", "mnist/3"]
    assert repository.get("mnist", 3) is kept


def test_half_written_version_is_passed_over(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    models.put("mnist/.2.tmp")
    repository.scan()
    assert models.tried == ["mnist/1"]


def test_second_scan_without_change_does_nothing(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    repository.scan()
    model = repository.get("mnist", None)
    repository.scan()
    assert repository.get("mnist", None) is model
    assert models.tried == ["mnist/1"]
    assert models.changes == [{"mnist"}]


def test_batches_are_as_large_as_engine_and_limits_allow(
    repository: Served, models: Models
) -> None:
    models.put("mnist/1")
    repository.scan()
    assert Caller(repository.get("mnist", None), 10).answered_by() == 1
    assert models.engines["mnist/1"].sizes == [4, 4, 2]


def test_queue_limit_reaches_the_batcher(make: Make, models: Models) -> None:
    repository = make(max_queue=3)
    models.put("mnist/1")
    models.gate.clear()
    repository.scan()
    model = repository.get("mnist", None)
    Caller(model)
    assert models.engines["mnist/1"].entered.wait(PATIENCE_S)
    Caller(model, 2)
    with pytest.raises(QueueFull, match="queue of model mnist/1 is full: 2 images wait, 2 more"):
        Caller(model, 2)


def test_cancel_of_a_model_version_drops_the_request(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    models.gate.clear()
    repository.scan()
    model = repository.get("mnist", None)
    caller = Caller(model)
    model.cancel(caller.request)
    assert isinstance(caller.outcome(), Cancelled)


def test_real_bundle_is_loaded_and_answers(make: Make, models: Models) -> None:
    write_bundle(models.folder, "mnist", 3)
    repository = make(load_engine=partial(load_engine, options=EngineOptions("cpu", max_batch=4)))
    repository.scan()
    model = repository.get("mnist", None)
    assert Manifest.FromString(model.description.manifest) == manifest()
    outcome: queue.SimpleQueue[Answer | ServeError] = queue.SimpleQueue()
    images = np.stack([digit_of(class_) for class_ in (3, 1, 4, 1, 5, 9)])
    model.batcher.submit(BatchRequest(images, None, outcome.put))
    answer = outcome.get(timeout=PATIENCE_S)
    assert isinstance(answer, Answer)
    assert answer.rows.argmax(axis=1).tolist() == [3, 1, 4, 1, 5, 9]


# A new version


def test_new_version_takes_over_while_the_old_one_finishes(
    repository: Served, models: Models
) -> None:
    models.put("mnist/1")
    models.gate.clear()
    repository.scan()
    old = repository.get("mnist", None)
    running, waiting = Caller(old), Caller(old, 6)
    assert models.engines["mnist/1"].entered.wait(PATIENCE_S)
    models.put("mnist/2")
    repository.scan()
    new = repository.get("mnist", None)
    assert loaded(repository) == ["mnist/2"]
    with pytest.raises(NotFound):
        repository.get("mnist", 1)
    fresh = Caller(new)
    # The old one accepts nothing more: work that has it still begins again on the new one, once.
    late = LateWork(repository.repository)
    late.start(old)
    assert late.started_on == [old, new]
    assert late.queued == [True, False]
    with pytest.raises(NotReady, match="model mnist/1 is being unloaded"):
        late.start(old)
    models.gate.set()
    assert [caller.answered_by() for caller in (running, waiting, fresh)] == [1, 1, 2]
    assert late.kept.answered_by() == 2
    assert old.batcher.join(PATIENCE_S)


class Held:
    """Holds up the loading of a version, in a scan on a thread of its own."""

    def __init__(self, repository: Served, models: Models, bundle: str) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self._bundle = bundle
        models.on_load = self._hold
        self._thread = threading.Thread(target=repository.scan)
        self._thread.start()
        assert self._begun.wait(PATIENCE_S)

    def _hold(self, bundle: str) -> None:
        if bundle == self._bundle:
            self._begun.set()
            assert self._go.wait(PATIENCE_S)

    def __enter__(self) -> None:
        """While held up."""

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def test_old_version_serves_while_the_new_one_loads(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    repository.scan()
    models.put("mnist/2")
    with Held(repository, models, "mnist/2"):
        assert Caller(repository.get("mnist", None)).answered_by() == 1
        assert models.changes == [{"mnist"}]
    assert Caller(repository.get("mnist", None)).answered_by() == 2


def wait_for_loading(repository: Served, name: str) -> None:
    """Wait until calls hear that a model is being loaded."""
    wait_for(lambda: name in repository.repository.table().loading)


@pytest.mark.parametrize("version", [None, 1])
def test_model_being_loaded_is_not_ready(
    version: int | None, repository: Served, models: Models
) -> None:
    repository.scan()
    models.put("mnist/1")
    with Held(repository, models, "mnist/1"):
        wait_for_loading(repository, "mnist")
        with pytest.raises(NotReady, match="model mnist is being loaded") as caught:
            repository.get("mnist", version)
        assert caught.value.retry_after_s
        with pytest.raises(NotFound):
            repository.get("cats", None)
    assert repository.get("mnist", version).version == 1


def test_model_that_could_not_be_loaded_is_not_found(repository: Served, models: Models) -> None:
    repository.scan()
    models.put("mnist/1", "garbage")
    with Held(repository, models, "mnist/1"):
        wait_for_loading(repository, "mnist")
        with pytest.raises(NotReady):
            repository.get("mnist", None)
    with pytest.raises(NotFound):
        repository.get("mnist", None)


# Bad versions

BAD = {
    "garbage": "is garbage",
    "contradicting": "manifest.labels: expected 10, got 11",
    "cold": "MemoryError: no memory for the arena",
    "surprise": "RuntimeError: never seen before",
}


@pytest.mark.parametrize("content", BAD)
def test_bad_new_version_keeps_the_old_one_and_is_tried_once(
    content: str, repository: Served, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    models.put("mnist/1")
    repository.scan()
    old = repository.get("mnist", None)
    models.put("mnist/2", content)
    repository.scan()
    repository.scan()
    assert repository.get("mnist", None) is old
    assert Caller(old).answered_by() == 1
    assert models.tried == ["mnist/1", "mnist/2"]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage().startswith("mnist/2 is not served") for record in errors] == [True]
    assert BAD[content] in caplog.text


def test_bad_newest_version_at_start_falls_back_to_an_older_good_one(
    repository: Served, models: Models
) -> None:
    models.put("mnist/1")
    models.put("mnist/2")
    models.put("mnist/3", "garbage")
    models.put("mnist/4", "surprise")
    repository.scan()
    assert loaded(repository) == ["mnist/2"]
    assert models.tried == ["mnist/4", "mnist/3", "mnist/2"]


def test_bad_version_of_two_is_replaced_by_an_older_one(make: Make, models: Models) -> None:
    repository = make(versions=2)
    models.put("mnist/1")
    models.put("mnist/2", "garbage")
    models.put("mnist/3")
    repository.scan()
    assert loaded(repository) == ["mnist/3", "mnist/1"]


def test_bad_model_leaves_the_others_alone(repository: Served, models: Models) -> None:
    models.put("cats/1", "surprise")
    models.put("mnist/1")
    repository.scan()
    assert loaded(repository) == ["mnist/1"]
    assert models.changes == [{"mnist"}]


def test_repaired_file_is_loaded(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    models.put("mnist/2", "garbage")
    repository.scan()
    assert loaded(repository) == ["mnist/1"]
    models.put("mnist/2", "good")
    repository.scan()
    assert loaded(repository) == ["mnist/2"]


def test_file_still_bad_after_a_change_is_tried_again_and_refused(
    repository: Served, models: Models
) -> None:
    models.put("mnist/1", "garbage")
    repository.scan()
    models.put("mnist/1", "surprise")
    repository.scan()
    repository.scan()
    assert models.tried == ["mnist/1", "mnist/1"]
    assert loaded(repository) == []


# What goes


def test_removed_model_is_unloaded_and_finishes(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    models.put("cats/1")
    models.gate.clear()
    repository.scan()
    gone = repository.get("cats", None)
    caller = Caller(gone)
    models.remove("cats/1")
    repository.scan()
    assert loaded(repository) == ["mnist/1"]
    assert models.changes[-1] == {"mnist"}
    with pytest.raises(NotFound, match="no model 'cats'; loaded: mnist"):
        repository.get("cats", None)
    models.gate.set()
    assert caller.answered_by() == 1
    assert gone.batcher.join(PATIENCE_S)


def test_removed_version_gives_way_to_the_one_before(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    models.put("mnist/2")
    repository.scan()
    models.remove("mnist/2")
    repository.scan()
    assert loaded(repository) == ["mnist/1"]
    # It was never without one.
    assert all(names == {"mnist"} for names in models.changes)


def test_removed_model_that_comes_back_is_loaded_again(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    repository.scan()
    models.remove("mnist/1")
    repository.scan()
    models.put("mnist/1")
    repository.scan()
    assert Caller(repository.get("mnist", None)).answered_by() == 1
    assert models.changes == [{"mnist"}, set(), {"mnist"}]


def test_folder_gone_for_a_while_unloads_nothing(
    repository: Served, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    models.put("mnist/1")
    repository.scan()
    away = models.folder.with_name("away")
    for times in (1, 2):
        models.folder.rename(away)
        repository.scan()
        repository.scan()
        assert Caller(repository.get("mnist", None)).answered_by() == 1
        problem = (
            f"cannot read the models folder {models.folder} as user {os.getuid()}: "
            "No such file or directory"
        )
        # Once each time that it goes, not once a scan.
        assert [record.getMessage() for record in caplog.records].count(problem) == times
        away.rename(models.folder)
        repository.scan()
    assert models.tried == ["mnist/1"]


def test_folder_that_may_not_be_read_unloads_nothing(
    repository: Served, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.put("mnist/1")
    models.put("cats/1")
    repository.scan()
    list_folder = Path.iterdir

    def refuse_cats(folder: Path) -> Iterator[Path]:
        if folder.name == "cats":
            raise PermissionError(13, "Permission denied")
        return iter(list(list_folder(folder)))

    monkeypatch.setattr(Path, "iterdir", refuse_cats)
    repository.scan()
    assert loaded(repository) == ["cats/1", "mnist/1"]


def test_unreadable_folder_of_one_model_hides_no_other_at_the_start(
    repository: Served,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for bundle in ("aaa/1", "mnist/1", "zzz/1"):
        models.put(bundle)
    list_folder = Path.iterdir
    refused = "mnist"

    def refuse(folder: Path) -> Iterator[Path]:
        if folder.name == refused:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return iter(list(list_folder(folder)))

    monkeypatch.setattr(Path, "iterdir", refuse)
    repository.scan()
    repository.scan()
    assert loaded(repository) == ["aaa/1", "zzz/1"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [f"mnist: cannot be read as user {os.getuid()}: Stale file handle"]
    refused = ""
    repository.scan()
    assert loaded(repository) == ["aaa/1", "mnist/1", "zzz/1"]


def test_file_that_cannot_be_read_is_named_once_and_tried_again(
    repository: Served,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    models.put("mnist/1")
    models.put("cats/1")
    read = Digests.read
    broken = True

    def fail(digests: Digests, path: Path) -> Content:
        if broken and "mnist" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(digests, path)

    monkeypatch.setattr(Digests, "read", fail)
    repository.scan()
    repository.scan()
    assert loaded(repository) == ["cats/1"]
    (error,) = (r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert error.endswith("mnist/1/model.onnx cannot be read: Input/output error")
    broken = False
    repository.scan()
    assert loaded(repository) == ["cats/1", "mnist/1"]


@pytest.mark.parametrize("gone", ["", "mnist"])
def test_volume_that_is_gone_and_leaves_an_empty_folder_unloads_nothing(
    gone: str, repository: Served, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    models.put("mnist/1")
    models.put("cats/1")
    repository.scan()
    mount = models.folder / gone
    away = models.folder.with_name("away")
    mount.rename(away)
    mount.mkdir()
    repository.scan()
    repository.scan()
    assert loaded(repository) == ["cats/1", "mnist/1"]
    assert Caller(repository.get("mnist", None)).answered_by() == 1
    (error,) = (r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert f"{mount} holds no model and is not the folder that it was" in error
    mount.rmdir()
    away.rename(mount)
    models.put("mnist/2")
    repository.scan()
    assert loaded(repository) == ["cats/1", "mnist/2"]


def test_folder_that_somebody_has_emptied_unloads_all(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    repository.scan()
    models.remove("mnist/1")
    (models.folder / "mnist").rmdir()
    repository.scan()
    assert loaded(repository) == []


def test_file_replaced_in_place_is_not_loaded_and_the_old_one_serves(
    repository: Served, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    models.put("mnist/1", "good")
    repository.scan()
    old = repository.get("mnist", None)
    models.put("mnist/1", "good, but another")
    repository.scan()
    repository.scan()
    assert repository.get("mnist", None) is old
    assert models.tried == ["mnist/1"]
    (error,) = (r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    assert error.startswith("mnist/1: its file was replaced: expected the one served first")


def test_model_that_is_slow_to_load_holds_up_no_other(
    repository: Served, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convserve_server.process.local_control.PATIENCE_S", 0.01)
    go = threading.Event()

    def load(bundle: str) -> None:
        if bundle == "aaa/2":
            assert go.wait(PATIENCE_S)

    models.on_load = load
    models.put("aaa/1")
    repository.scan()
    models.put("aaa/2")
    models.put("mnist/1")
    scan_until(repository, ["aaa/1", "mnist/1"])
    models.put("mnist/2")
    scan_until(repository, ["aaa/1", "mnist/2"])
    assert models.tried.count("aaa/2") == 1
    go.set()
    scan_until(repository, ["aaa/2", "mnist/2"])


# What the rows must be


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nan", "probabilities: expected finite numbers, got 40 of 40 that are not"),
        ("logits", "probabilities: expected 0 to 1, got 0 to 20"),
        ("sums", "probabilities: expected rows that sum to 1, got a sum of 5"),
    ],
)
def test_net_whose_rows_are_no_probabilities_is_refused(
    content: str,
    words: str,
    repository: Served,
    models: Models,
    caplog: pytest.LogCaptureFixture,
) -> None:
    models.put("mnist/1")
    models.put("mnist/2", content)
    repository.scan()
    assert loaded(repository) == ["mnist/1"]
    assert f"mnist/2 is not served: {words}" in caplog.text
    assert repository.refused() == {("mnist", 2): words}


# Changes


def test_change_is_reported_with_the_names_that_are_served_by_then(
    models: Models, make: Make
) -> None:
    repository = make()
    repository.scan()
    models.put("mnist/1")
    models.put("cats/1")
    repository.scan()
    assert models.changes == [{"cats"}, {"cats", "mnist"}]
    models.put("mnist/2")
    repository.scan()
    models.remove("cats/1")
    repository.scan()
    assert models.changes[2:] == [{"mnist"}]


# Watching


def test_watch_loads_what_comes_and_close_ends_it(repository: Served, models: Models) -> None:
    repository.scan()
    repository.watch()
    models.put("mnist/1")
    wait_for(lambda: loaded(repository) == ["mnist/1"])
    model = repository.get("mnist", None)
    repository.close(PATIENCE_S)
    assert "models folder" not in [thread.name for thread in threading.enumerate()]
    assert model.batcher.join(0)
    with pytest.raises(NotReady):
        Caller(model)


def test_watch_goes_on_after_a_scan_that_failed(
    repository: Served,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scan = repository.scan
    scans = 0
    second = threading.Event()

    def fail_first() -> None:
        nonlocal scans
        scans += 1
        if scans == 1:
            raise ZeroDivisionError("our fault")
        scan()
        second.set()

    monkeypatch.setattr(repository.control, "scan", fail_first)
    models.put("mnist/1")
    repository.watch()
    assert second.wait(PATIENCE_S)
    assert loaded(repository) == ["mnist/1"]
    assert f"scanning {models.folder} failed" in caplog.text
    assert "ZeroDivisionError: our fault" in caplog.text


def test_close_finishes_what_was_accepted(repository: Served, models: Models) -> None:
    models.put("mnist/1")
    repository.scan()
    callers = [Caller(repository.get("mnist", None), 3) for _ in range(5)]
    repository.close(PATIENCE_S)
    assert [caller.answered_by() for caller in callers] == [1] * 5


def test_close_with_an_engine_that_hangs_says_which(
    repository: Served, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    models.put("mnist/1")
    models.gate.clear()
    repository.scan()
    caller = Caller(repository.get("mnist", None))
    repository.close(timeout_s=0.0)
    assert "mnist/1: still busy at the end" in caplog.text
    models.gate.set()
    assert caller.answered_by() == 1


# How much may wait


@pytest.mark.parametrize(
    ("max_queue", "max_queue_bytes", "image_bytes", "images"),
    [
        (4096, 2**28, 784, 4096),
        (4096, 2**28, 67_500, 3976),
        (4096, 2**22, 67_500, 62),
        # A batch may always wait, however little memory there is, unless the user set less.
        (4096, 1, 67_500, 8),
        (5, 1, 67_500, 5),
    ],
)
def test_queue_holds_the_images_that_fit_its_bytes(
    max_queue: int, max_queue_bytes: int, image_bytes: int, images: int
) -> None:
    limits = ModelLimits(
        max_batch=64,
        max_queue=max_queue,
        max_queue_bytes=max_queue_bytes,
        max_delay_s=0.0,
        max_pixels=1,
        max_decoder_bytes=1,
    )
    assert limits.queue_images(image_bytes, 8) == images


def test_model_is_loaded_with_the_queue_that_its_images_need(make: Make, models: Models) -> None:
    models.put("mnist/1")
    size = int(np.prod(SHAPE))
    repository = make(max_queue=100, max_queue_bytes=20 * size)
    repository.scan()
    assert repository.get("mnist", None).batcher.max_queue == 20


def test_folder_without_bundles_is_reported_at_the_start_only(
    repository: Served, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (models.folder / "README").touch()
    repository.scan()
    repository.scan()
    says = f"no models in {models.folder} yet; waiting for the first"
    assert [record.getMessage() for record in caplog.records].count(says) == 1


# The change of a table, which all workers make at once


def table(generation: int, *bundles: Bundle) -> Table:
    return Table(generation, (ServedModel("mnist", bundles),))


def test_staged_table_counts_from_the_moment_its_number_is_written(models: Models) -> None:
    switch = [0]
    retired: queue.SimpleQueue[Bundle] = queue.SimpleQueue()
    repository = Repository(lambda name: LIMITS, switch, retired=retired.put)
    first, second = Bundle("mnist", 1, "a"), Bundle("mnist", 2, "b")
    for one in (first, second):
        models.put(str(one))
        loaded = load_bundle(models.folder / str(one) / "model.onnx", models.load)
        repository.hold(one, loaded)
    assert repository.stage(table(1, first))
    with pytest.raises(NotFound):
        repository.get("mnist", None)
    switch[0] = 1
    old = repository.get("mnist", None)
    assert old.version == 1
    assert repository.stage(table(2, second))
    # Another number is not this table's.
    switch[0] = 7
    assert repository.get("mnist", None) is old
    switch[0] = 2
    assert repository.get("mnist", None).version == 2
    assert [model.version for model in repository.models()] == [2]
    # What has left goes on until it is settled.
    assert Caller(old).answered_by() == 1
    repository.settle()
    assert retired.get(timeout=PATIENCE_S) == first
    with pytest.raises(NotReady):
        Caller(old)
    repository.close(PATIENCE_S)


def test_table_with_a_version_that_is_not_loaded_is_not_staged() -> None:
    switch = [0]
    repository = Repository(lambda name: LIMITS, switch)
    assert not repository.stage(table(1, Bundle("mnist", 1, "a")))
    switch[0] = 1
    assert repository.models() == []


def test_version_that_is_prepared_in_vain_is_dropped(models: Models) -> None:
    retired: queue.SimpleQueue[Bundle] = queue.SimpleQueue()
    repository = Repository(lambda name: LIMITS, [0], retired=retired.put)
    one = Bundle("mnist", 1, "a")
    models.put(str(one))
    repository.hold(one, load_bundle(models.folder / "mnist/1/model.onnx", models.load))
    repository.drop(one)
    assert retired.get(timeout=PATIENCE_S) == one
    assert not repository.stage(table(1, one))


def test_labels_are_those_of_the_table(models: Models) -> None:
    switch = [0]
    repository = Repository(lambda name: LIMITS, switch)
    one = Bundle("mnist", 1, "a")
    models.put(str(one))
    repository.hold(one, load_bundle(models.folder / "mnist/1/model.onnx", models.load))
    repository.stage(Table(1, (ServedModel("mnist", (one,), {"stable": 1}),)))
    switch[0] = 1
    assert repository.get("mnist", "stable").version == 1
    with pytest.raises(NotFound, match="model mnist has no version with the label 'canary'"):
        repository.get("mnist", "canary")
    repository.close(PATIENCE_S)


def test_label_answers_calls_that_ask_for_no_version(models: Models) -> None:
    switch = [0]
    repository = Repository(lambda name: LIMITS, switch)
    one, two = Bundle("mnist", 1, "a"), Bundle("mnist", 2, "b")
    for bundle in (one, two):
        models.put(str(bundle))
        repository.hold(bundle, load_bundle(models.folder / f"{bundle}/model.onnx", models.load))

    def serve(labels: dict[str, int]) -> None:
        model = ServedModel("mnist", (two, one), labels, default_label="stable")
        assert repository.stage(Table(switch[0] + 1, (model,)))
        switch[0] += 1

    for version in (1, 2, 1):
        serve({"stable": version})
        assert repository.get("mnist", None).version == version
        assert repository.describe("mnist", None).version == version
        assert repository.get("mnist", 2).version == 2
    serve({"canary": 2})
    expected = "model mnist has no version with the label 'stable'; labels: canary"
    with pytest.raises(NotFound, match=expected):
        repository.get("mnist", None)
    assert repository.get("mnist", "canary").version == 2
    repository.close(PATIENCE_S)


# Models that nobody asks for


def test_model_that_nobody_asks_for_is_unloaded_and_loaded_again_at_the_next_call(
    make: Make, models: Models
) -> None:
    repository = make(unload_after_s=0.01)
    models.put("mnist/1")
    repository.scan()
    first = repository.get("mnist", None)
    scan_until(repository, [])
    assert first.batcher.join(PATIENCE_S)
    # It is still there for who lists and for health.
    assert [str(one) for one in repository.repository.descriptions()] == ["mnist/1"]
    assert models.changes[-1] == {"mnist"}
    with pytest.raises(ModelIdle):
        repository.get("mnist", None)
    work = LateWork(repository.repository)
    repository.repository.submit(work)
    assert work.started_on == []
    repository.wait_for_news(PATIENCE_S)
    scan_until(repository, ["mnist/1"])
    assert work.kept.answered_by() == 1
    assert work.started_on != [first]


def test_call_for_what_an_idle_model_does_not_have_wakes_nothing(
    make: Make, models: Models
) -> None:
    repository = make(unload_after_s=0.01)
    models.put("mnist/1")
    repository.scan()
    scan_until(repository, [])
    with pytest.raises(NotFound, match="has no version 2; loaded: 1"):
        repository.get("mnist", 2)
    with pytest.raises(NotFound, match="no version with the label 'stable'"):
        repository.get("mnist", "stable")


def test_calls_that_wait_end_when_the_model_is_removed(make: Make, models: Models) -> None:
    repository = make(unload_after_s=0.01)
    models.put("mnist/1")
    repository.scan()
    scan_until(repository, [])
    work = LateWork(repository.repository)
    repository.repository.submit(work)
    models.remove("mnist/1")
    repository.scan()
    outcome = work.kept.outcome()
    assert isinstance(outcome, NotFound)


def test_call_that_is_forgotten_does_not_begin(make: Make, models: Models) -> None:
    repository = make(unload_after_s=0.01)
    models.put("mnist/1")
    repository.scan()
    scan_until(repository, [])
    gone, stays = LateWork(repository.repository), LateWork(repository.repository)
    for work in (gone, stays):
        repository.repository.submit(work)
    repository.repository.forget(gone)
    repository.wait_for_news(PATIENCE_S)
    scan_until(repository, ["mnist/1"])
    assert stays.kept.answered_by() == 1
    assert gone.started_on == []
