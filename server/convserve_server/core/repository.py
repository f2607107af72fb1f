"""The versions that are loaded: who answers for a name, and what happens when that changes."""

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from convserve_server.core.batch_request import BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher, Unloading
from convserve_server.core.decoders import make_decoder
from convserve_server.core.errors import ModelLoading, NotFound, listed, quoted
from convserve_server.core.jobs import Priority
from convserve_server.core.models import ModelDescription, ModelVersion, VersionChoice, Versions
from convserve_server.core.permits import Bundle, Permits
from convserve_server.engines.base import LoadedModel
from convserve_server.telemetry.observer import NO_OBSERVER, Observer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelLimits:
    """How the batcher and the decoder of a model's versions are built; see settings.

    Attributes:
        max_batch: maximum batch size, images; 0: what the engine chose.
        max_queue: images that may wait.
        max_queue_bytes: of pixels that may wait.
        max_delay_s: maximum batching delay.
        max_pixels: of a file, by its header.
        max_decoder_bytes: that decoding a file may take.
        max_wait_s: longest time that a call may wait; 0: as long as its deadline allows.
        batch_share: of an engine, that batch calls get at least while they wait; 0 to 1.
        priority: of calls that do not say theirs.
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

    def queue_images(self, image_bytes: int, max_batch: int) -> int:
        """Returns the most images of so many bytes in a queue; one batch may always wait."""
        return min(self.max_queue, max(max_batch, self.max_queue_bytes // image_bytes))


class Work(ABC):
    """The work of one call on a model, which may have to begin again.

    Attributes:
        model: name of the model that the call asks for.
        version: that it asks for, or a label; None for the newest.
        restarted: whether it has begun again, because its version was unloaded on the way.
    """

    __slots__ = ("model", "restarted", "version")

    def __init__(self, model: str, version: VersionChoice) -> None:
        self.model = model
        self.version = version
        self.restarted = False

    @abstractmethod
    def start(self, model: ModelVersion) -> None:
        """Begins the work on a version, which ends in Repository.enqueue().

        Raises:
            ServeError: if the call cannot be served.
        """


class Repository:
    """Answers who serves what.

    Args:
        limits: of each model, by its name.
        permits: hear what is served.
        on_change: called after every change with the names of all models that are served.
        observer: of batchers.
    """

    def __init__(
        self,
        limits: Callable[[str], ModelLimits],
        permits: Permits,
        on_change: Callable[[frozenset[str]], None] = lambda names: None,
        observer: Observer = NO_OBSERVER,
    ) -> None:
        self._limits = limits
        self._permits = permits
        self._on_change = on_change
        self._observer = observer
        # Replaced as a whole, so that readers need no lock.
        self.loaded: Versions = MappingProxyType({})
        #: The version that has each label, by model and label; only versions that are loaded.
        self.labels: Mapping[str, Mapping[str, int]] = MappingProxyType({})
        #: Names of models of which a version is being loaded.
        self.loading: frozenset[str] = frozenset()
        #: Versions that are in the folder and not served, and why, by name and version.
        self.refused: Callable[[], Mapping[tuple[str, int], str]] = dict
        self._lock = threading.Lock()

    def get(self, name: str, version: VersionChoice) -> ModelVersion:
        """Returns the version of a model that is asked for, or its newest.

        Raises:
            ModelLoading: if the model is being loaded.
            NotFound: if there is none; says what there is.
        """
        versions = self.loaded.get(name)
        if versions is not None:
            if version is None:
                return versions[max(versions)]
            if isinstance(version, str):
                return versions[self._labelled(name, version)]
            if version in versions:
                return versions[version]
            there = listed([str(number) for number in sorted(versions)])
            raise NotFound(
                "version",
                f"{name}/{version}",
                f"model {name} has no version {version}; loaded: {there}",
            )
        if name in self.loading:
            raise ModelLoading(f"model {name} is being loaded")
        there = listed(sorted(self.loaded))
        raise NotFound("model", name, f"no model {quoted(name)}; loaded: {there}")

    def _labelled(self, name: str, label: str) -> int:
        """Returns the version of a model that has a label.

        Raises:
            NotFound: if none has it; says which labels there are.
        """
        labels = self.labels.get(name, {})
        if label in labels:
            return labels[label]
        raise NotFound(
            "version",
            f"{name}/{label}",
            f"model {name} has no version with the label {quoted(label)}; labels: "
            f"{listed(sorted(labels))}",
        )

    def submit(self, work: Work) -> None:
        """Begins the work of a call on the version that it asks for.

        Raises:
            ServeError: if there is no such version, or the call cannot be served.
        """
        work.start(self.get(work.model, work.version))

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

    def models(self) -> list[ModelVersion]:
        """Returns all that is loaded, by name, then newest first."""
        return [
            versions[number]
            for _, versions in sorted(self.loaded.items())
            for number in sorted(versions, reverse=True)
        ]

    def add(self, bundle: Bundle, loaded: LoadedModel) -> ModelVersion:
        """Serves a version from now on.

        Args:
            bundle: that was loaded.
            loaded: what came of it.
        """
        model = self._make_version(bundle, loaded)
        with self._lock:
            others = self.loaded.get(bundle.name, {})
            self._replace({**self.loaded, bundle.name: {**others, bundle.version: model}})
        return model

    def retain(self, keep: Callable[[str, Mapping[int, ModelVersion]], list[int]]) -> None:
        """Unloads versions; what they have accepted is still answered.

        Args:
            keep: the versions of a model, by its name, that stay.
        """
        with self._lock:
            kept = {
                name: {number: versions[number] for number in numbers}
                for name, versions in self.loaded.items()
                if (numbers := keep(name, versions))
            }
            retired = [m for m in self.models() if m.version not in kept.get(m.name, {})]
            if not retired:
                return
            self._replace(kept)
        for model in retired:
            model.batcher.close()
            log.info("%s is unloaded", model.description)

    def close(self, timeout_s: float) -> None:
        """Lets every batcher finish, each at most so long."""
        for model in self.models():
            model.batcher.close()
        for model in self.models():
            if not model.batcher.join(timeout_s):
                log.warning("%s: still busy at the end", model.description)

    def _make_version(self, bundle: Bundle, loaded: LoadedModel) -> ModelVersion:
        engine, limits = loaded.engine, self._limits(bundle.name)
        max_batch = min(limits.max_batch or engine.max_batch, engine.max_batch)
        batcher = Batcher(
            engine.run,
            max_batch=max_batch,
            max_queue=limits.queue_images(math.prod(engine.image_shape), max_batch),
            max_delay_s=limits.max_delay_s,
            max_wait_s=limits.max_wait_s,
            batch_share=limits.batch_share,
            times=BatchTimes(loaded.batch_s),
            name=f"model {bundle}",
            parallel=engine.parallel,
            observer=self._observer,
            model=str(bundle),
        )
        log.info(
            "%s is served by %s, batches of up to %d, a queue of up to %d images",
            bundle, engine.provider, batcher.max_batch, batcher.max_queue,
        )  # fmt: skip
        decode = make_decoder(
            loaded.decoding, engine.image_shape, limits.max_pixels, limits.max_decoder_bytes
        )
        description = ModelDescription(
            bundle.name,
            bundle.version,
            loaded.labels,
            engine.image_shape,
            engine.classes,
            engine.provider,
            loaded.manifest,
        )
        return ModelVersion(description, bundle.digest, engine, batcher, decode, limits.priority)

    def _replace(self, loaded: Versions) -> None:
        """Serves these from now on. Called with the lock."""
        self.loaded = MappingProxyType(dict(loaded))
        self._permits.serves(tuple(Bundle(m.name, m.version, m.digest) for m in self.models()))
        self._on_change(frozenset(loaded))
