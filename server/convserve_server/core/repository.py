"""The versions that are loaded: who answers for a name, and what happens when that changes."""

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from convserve_imaging.decoders import make_decoder
from convserve_server.core.batch_request import BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher, Unloading
from convserve_server.core.descriptions import ModelDescription, signature_of_images
from convserve_server.core.errors import (
    InternalFault,
    ModelIdle,
    ModelLoading,
    NoModel,
    NotFound,
    ServeError,
    listed,
    quoted,
)
from convserve_server.core.image_watch import ImageWatch
from convserve_server.core.jobs import Priority
from convserve_server.core.models import ModelVersion, VersionChoice, Versions
from convserve_server.core.parked_calls import ParkedCalls
from convserve_server.core.tables import Bundle, IdleModel, Table
from convserve_server.engines.base import Loaded, LoadedModel
from convserve_server.telemetry.observer import NO_OBSERVER, Observer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelLimits:
    """How the batcher and the decoder of a model's versions are built; see settings.

    Attributes:
        max_batch: maximum batch size, images; 0: what the engine chose.
        max_queue: images, or rows of tensors, that may wait.
        max_queue_bytes: of pixels, or tensors, that may wait.
        max_delay_s: maximum batching delay.
        max_pixels: of a file, by its header.
        max_decoder_bytes: that decoding a file may take.
        max_wait_s: longest time that a call may wait; 0: as long as its deadline allows.
        batch_share: of an engine, that batch calls get at least while they wait; 0 to 1.
        priority: of calls that do not say theirs.
        drift_sample: images a second that are looked at; 0: none.
    """

    max_batch: int
    max_queue: int
    max_queue_bytes: int
    max_delay_s: float
    max_pixels: int
    max_decoder_bytes: int
    max_wait_s: float = 0.0
    batch_share: float = 0.1
    priority: Priority = Priority.INTERACTIVE
    drift_sample: float = 0.0

    def queue_images(self, image_bytes: int, max_batch: int) -> int:
        """Returns the most images of so many bytes in a queue; one batch may always wait."""
        return min(self.max_queue, max(max_batch, self.max_queue_bytes // image_bytes))


class Work(Protocol):
    """The work of one call on a model, which may have to wait for it, or to begin again.

    Attributes:
        model: name of the model that the call asks for.
        version: that it asks for, or a label; None for the newest.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        restarted: whether it has begun again, because its version was unloaded on the way; False
            at first.
    """

    model: str
    version: VersionChoice
    deadline: float | None
    restarted: bool

    @property
    def held_bytes(self) -> int:
        """Bytes that it holds until it begins."""

    def start(self, model: ModelVersion) -> None:
        """Begins the work on a version, which ends in Repository.enqueue().

        Raises:
            ServeError: if the call cannot be served.
        """

    def fail(self, error: ServeError) -> None:
        """Answers the call with an error; for work that has waited."""


class _View:
    """A table with what is loaded of it; replaced as a whole, so that readers need no lock."""

    __slots__ = ("default", "idle", "loaded", "table")

    def __init__(self, table: Table, loaded: Versions) -> None:
        self.table = table
        self.loaded = loaded
        self.idle = {model.name: model for model in table.idle}
        # What answers calls that ask for no version, by the name of the model.
        self.default = {
            model.name: loaded[model.name][model.default]
            for model in table.models
            if model.default is not None
        }


class Repository:
    """Answers who serves what: the versions of a table, and no others.

    Versions are held until a table has them, and a table is staged until its number is in the
    switch, which all workers share. Every call compares that number with the one that it knows. So
    all workers change at the same instant: as soon as one of them has answered by a new table, each
    call that begins anywhere is answered by it.

    Args:
        limits: of each model, by its name.
        switch: the number of the table that counts, at index 0.
        on_change: called with the names of all models that are served when these have changed.
        retired: called with a version that was unloaded when it has answered all it had accepted.
        observer: of versions and their batchers.
        wake: called with the name of a model that is idle when a call asks for it.

    Attributes:
        observer: the same.
    """

    def __init__(
        self,
        limits: Callable[[str], ModelLimits],
        switch: Sequence[int],
        on_change: Callable[[frozenset[str]], None] = lambda names: None,
        retired: Callable[[Bundle], None] = lambda bundle: None,
        observer: Observer = NO_OBSERVER,
        wake: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._limits = limits
        self._switch = switch
        self._on_change = on_change
        self._retired = retired
        self.observer = observer
        self._generation = switch[0]
        self._view = _View(Table(), {})
        self._staged: Table | None = None
        # Loaded, and in no table that has counted yet.
        self._held: dict[Bundle, ModelVersion] = {}
        # Served since the last settle(), and no longer served.
        self._arrived: list[ModelVersion] = []
        self._leaving: list[ModelVersion] = []
        self._names: frozenset[str] = frozenset()
        self._parked: ParkedCalls[Work] = ParkedCalls(wake)
        # When used() was last called.
        self._asked = time.monotonic()
        self._lock = threading.Lock()

    def get(self, name: str, version: VersionChoice) -> ModelVersion:
        """Returns the version of a model that is asked for, or the one for calls that ask for none.

        Raises:
            ModelIdle: if it is loaded only when a call asks for it.
            ModelLoading: if the model is being loaded.
            NotFound: if there is none; says what there is.
        """
        if self._switch[0] != self._generation:
            self._change()
        view = self._view
        versions = view.loaded.get(name)
        if versions is not None:
            if version is None:
                try:
                    return view.default[name]
                except KeyError:
                    version = view.table.default_label(name)
            if isinstance(version, str):
                version = _find_label(name, view.table.labels(name), version)
            if version in versions:
                return versions[version]
            raise _no_version(name, version, versions)
        if name in view.idle:
            _find_idle(view.idle[name], version)
            raise ModelIdle(name, view.idle[name].load_s)
        if name in view.table.loading:
            raise ModelLoading(f"model {name} is being loaded")
        raise NoModel(name, sorted(view.loaded))

    def describe(self, name: str, version: VersionChoice) -> ModelDescription:
        """Returns what is known of the version that would answer a call, also of one that is idle.

        Raises:
            ModelLoading, NotFound: see get.
        """
        while True:
            try:
                return self.get(name, version).description
            except ModelIdle:
                idle = self._view.idle.get(name)
            # If there is none, the model was loaded meanwhile.
            if idle is not None:
                return _find_idle(idle, version)

    def versions(self, name: str) -> Mapping[int, ModelVersion]:
        """Returns the versions of a model that are served, by their numbers."""
        if self._switch[0] != self._generation:
            self._change()
        return self._view.loaded.get(name, {})

    def table(self) -> Table:
        """Returns the table that counts."""
        if self._switch[0] != self._generation:
            self._change()
        return self._view.table

    def submit(self, work: Work) -> None:
        """Begins the work of a call on the version that it asks for, or when that is loaded.

        Raises:
            ServeError: if there is no such version, or the call cannot be served.
        """
        try:
            model = self.get(work.model, work.version)
        except ModelIdle as idle:
            limits = self._limits(work.model)
            self._parked.park(work, idle.load_s, limits.max_queue, limits.max_queue_bytes)
            # It may have been loaded meanwhile, and whoever begins what is parked have passed by.
            if work.model not in self._view.idle:
                self._begin_parked()
            return
        again = work.restarted
        try:
            work.start(model)
        except ServeError as error:
            # Where it has begun again on a successor, that one has reported it.
            if work.restarted == again:
                self.observer.failed(model.batcher.model, error.reason, 0.0)
            raise

    def forget(self, work: Work) -> None:
        """Drops work that waits for its model, as nobody waits for the answer."""
        self._parked.forget(work)

    def used(self) -> tuple[str, ...]:
        """Returns the names of the models that calls have used since it was last called."""
        since, self._asked = self._asked, time.monotonic()
        return tuple(
            name
            for name, versions in self._view.loaded.items()
            if any(model.batcher.was_used(since) for model in versions.values())
        )

    def enqueue(
        self,
        work: Work,
        model: ModelVersion,
        request: BatchRequest,
        *,
        idle_caller: bool = False,
        admitted: bool = False,
    ) -> bool:
        """Queues the images of a call; if its version is being unloaded, the work begins again.

        A version refuses requests only when the repository has its successor.

        Args:
            work: of the call.
            model: on which it was started.
            request: its images.
            idle_caller: see Batcher.submit.
            admitted: see Batcher.submit.

        Returns: whether the request is queued; if not, the work has begun again.

        Raises:
            QueueFull: if the images do not fit into the queue, or there is no time for them.
            Unloading: if the work has begun again before.
            ServeError: if the work cannot begin again.
        """
        try:
            model.batcher.submit(request, idle_caller=idle_caller, admitted=admitted)
        except Unloading:
            if work.restarted:
                raise
            work.restarted = True
            self.submit(work)
            return False
        return True

    def refused(self) -> Mapping[tuple[str, int], str]:
        """Returns the versions that exist and are not served, and why, by name and version."""
        return {(one.name, one.version): one.reason for one in self.table().refused}

    def models(self) -> list[ModelVersion]:
        """Returns all that is served, by name, then newest first."""
        self.table()
        return [
            versions[number]
            for _, versions in sorted(self._view.loaded.items())
            for number in sorted(versions, reverse=True)
        ]

    def descriptions(self) -> list[ModelDescription]:
        """Returns what is known of all that can be asked for, by name, then newest first."""
        there = [model.description for model in self.models()]
        there += [version for model in self._view.table.idle for version in model.versions]
        return sorted(there, key=lambda one: (one.name, -one.version))

    def hold(self, bundle: Bundle, loaded: Loaded) -> ModelDescription:
        """Keeps a version until a table has it; returns what callers may know of it.

        Args:
            bundle: that was loaded.
            loaded: what came of it.
        """
        model = self._make_version(bundle, loaded)
        self.observer.loaded(str(bundle))
        with self._lock:
            self._held[bundle] = model
        return model.description

    def drop(self, bundle: Bundle) -> None:
        """Gives up a version that is held and will be in no table."""
        with self._lock:
            model = self._held.pop(bundle, None)
        if model is not None:
            self._unload(model)

    def stage(self, table: Table) -> bool:
        """Keeps a table until its number is in the switch.

        Returns: whether all its versions are there; if not, it is not kept.
        """
        with self._lock:
            self._apply()
            known = {*self._held, *map(_bundle, self._served())}
            if not table.bundles <= known:
                return False
            self._staged = table
            return True

    def settle(self) -> None:
        """Finishes a change of table: unloads what it no longer has, and reports it."""
        with self._lock:
            self._apply()
            arrived, self._arrived = self._arrived, []
            leaving, self._leaving = self._leaving, []
            names = self._names
            self._names = frozenset(self._view.loaded) | self._view.idle.keys()
        for model in arrived:
            log.info(
                "%s is served by %s, batches of up to %d, a queue of up to %d images",
                model.description, model.description.provider, model.batcher.max_batch,
                model.batcher.max_queue,
            )  # fmt: skip
        if names != self._names:
            self._on_change(self._names)
        self._begin_parked()
        for model in leaving:
            self._unload(model)

    def close(self, timeout_s: float) -> None:
        """Lets every batcher finish, each at most so long."""
        with self._lock:
            models = [*self._served(), *self._held.values(), *self._leaving]
        for model in models:
            model.batcher.close()
        for model in models:
            if not model.batcher.join(timeout_s):
                log.warning("%s: still busy at the end", model.description)

    def _begin_parked(self) -> None:
        """Begins, or refuses, the work that waits for models that are no longer idle."""
        view = self._view
        for work in self._parked.take(self._parked.names() - view.idle.keys()):
            try:
                self.submit(work)
            except ServeError as error:
                work.fail(error)
            except Exception as error:  # noqa: BLE001 - it is this caller's answer, the others go on
                work.fail(InternalFault(f"a call for {work.model}", error))

    def _change(self) -> None:
        with self._lock:
            self._apply()

    def _apply(self) -> None:
        """Changes to the staged table if it counts. Called with the lock, by calls as well: short.

        What it no longer has leaves in settle(), which the supervisor asks for right after.
        """
        table = self._staged
        if table is None or table.generation != self._switch[0]:
            return
        before = {_bundle(model): model for model in self._served()}
        loaded: dict[str, dict[int, ModelVersion]] = {}
        for model in table.models:
            loaded[model.name] = {
                bundle.version: self._held.pop(bundle) if bundle in self._held else before[bundle]
                for bundle in model.versions
            }
        self._view = _View(table, loaded)
        now = self._served()
        self._arrived += [model for model in now if model not in before.values()]
        self._leaving += [model for model in before.values() if model not in now]
        self._staged = None
        # Last: who sees it sees the view, too.
        self._generation = table.generation

    def _served(self) -> list[ModelVersion]:
        return [model for versions in self._view.loaded.values() for model in versions.values()]

    def _unload(self, model: ModelVersion) -> None:
        model.batcher.close()
        log.info("%s is unloaded", model.description)
        threading.Thread(
            target=self._report_retired, args=([model],), name=f"unload {model.name}", daemon=True
        ).start()

    def _report_retired(self, models: list[ModelVersion]) -> None:
        # Taken out of the list, which the thread keeps: the memory is free when it is reported.
        model = models.pop()
        bundle = _bundle(model)
        model.batcher.join()
        del model
        self._retired(bundle)

    def _make_version(self, bundle: Bundle, loaded: Loaded) -> ModelVersion:
        engine, limits = loaded.engine, self._limits(bundle.name)
        max_batch = min(limits.max_batch or engine.max_batch, engine.max_batch)
        decode = watch = None
        if isinstance(loaded, LoadedModel):
            shape, classes = loaded.engine.image_shape, loaded.engine.classes
            labels, manifest = loaded.labels, loaded.manifest
            thresholds = loaded.thresholds
            signature = signature_of_images(shape, classes)
            max_queue, max_bytes = limits.queue_images(math.prod(shape), max_batch), math.inf
            decode = make_decoder(
                loaded.decoding, shape, limits.max_pixels, limits.max_decoder_bytes
            )
            if limits.drift_sample and loaded.known:
                self.observer.expects(str(bundle), loaded.known)
                watch = ImageWatch(str(bundle), loaded.known, limits.drift_sample, self.observer)
        else:
            shape, classes, labels, manifest = (0, 0, 0), 0, (), b""
            thresholds = ()
            signature = loaded.engine.signature
            max_queue, max_bytes = max(max_batch, limits.max_queue), limits.max_queue_bytes
        batcher = Batcher(
            engine.run,
            max_batch=max_batch,
            max_queue=max_queue,
            max_delay_s=limits.max_delay_s,
            max_wait_s=limits.max_wait_s,
            batch_share=limits.batch_share,
            times=BatchTimes(loaded.batch_s),
            name=f"model {bundle}",
            parallel=engine.parallel,
            spare=engine.spare,
            observer=self.observer,
            model=str(bundle),
            tensors=decode is None,
            max_bytes=max_bytes,
            watch=watch,
        )
        description = ModelDescription(
            bundle.name,
            bundle.version,
            labels,
            shape,
            classes,
            engine.provider,
            manifest,
            signature,
            max_batch,
            thresholds,
        )
        return ModelVersion(
            description, bundle.digest, engine, batcher, decode, limits.priority, watch
        )


def _bundle(model: ModelVersion) -> Bundle:
    return Bundle(model.name, model.version, model.digest)


def _find_idle(model: IdleModel, version: VersionChoice) -> ModelDescription:
    """Returns the version of an idle model that a call asks for.

    Raises:
        NotFound: if it does not have it even when it is loaded; says which there are.
    """
    if version is None:
        version = model.default_label or model.versions[0].version
    if isinstance(version, str):
        version = _find_label(model.name, model.labels, version)
    for one in model.versions:
        if one.version == version:
            return one
    raise _no_version(model.name, version, [one.version for one in model.versions])


def _no_version(name: str, version: VersionChoice, there: Collection[int]) -> NotFound:
    return NotFound(
        "version",
        f"{name}/{version}",
        f"model {name} has no version {version}; loaded: "
        f"{listed([str(number) for number in sorted(there)])}",
    )


def _find_label(name: str, labels: Mapping[str, int], label: str) -> int:
    """Returns the version of a model that has a label.

    Raises:
        NotFound: if none has it; says which labels there are.
    """
    if label in labels:
        return labels[label]
    raise NotFound(
        "version",
        f"{name}/{label}",
        f"model {name} has no version with the label {quoted(label)}; labels: "
        f"{listed(sorted(labels))}",
    )
