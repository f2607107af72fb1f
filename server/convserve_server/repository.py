"""The models folder, and the versions that are loaded from it.

A scan compares the two: new versions are loaded and warmed off the request path and take over when
they are ready, old ones finish what they have accepted. A version that cannot be loaded is logged
and leaves the ones that serve alone.
"""

import logging
import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from convserve_protos.bundle_pb2 import Manifest
from convserve_protos.classifier_pb2 import ClassifyResponse
from convserve_server.batching.batcher import Batcher
from convserve_server.batching.request import Request
from convserve_server.bundle import BundleError, check_manifest, list_bundles
from convserve_server.decode.decoders import decoder_for
from convserve_server.decode.decoding import Decode
from convserve_server.engines.engine import Engine
from convserve_server.engines.session_engine import EngineError
from convserve_server.errors import NotFound, NotReady, listed, quoted

log = logging.getLogger(__name__)

Loader = Callable[[Path], Engine]
Versions = Mapping[str, Mapping[int, "ModelVersion"]]


@dataclass(frozen=True)
class ModelVersion:
    """A loaded version of a model, warm and with its queue."""

    name: str
    version: int
    manifest: Manifest
    engine: Engine
    batcher: Batcher
    #: Makes of a file what the engine takes.
    decode: Decode
    #: Name, version and labels as the serialized beginning of every ClassifyResponse.
    header: bytes

    def submit(
        self, request: Request, *, last: bool, alone: bool = False, admitted: bool = False
    ) -> bool:
        """Queue a request, or run it at once if it is alone (see Batcher.submit).

        Returns: False if this version is being unloaded and this was not the last attempt.

        Raises:
            QueueFull: if there is no place for it.
            NotReady: if this version is being unloaded and this was the last attempt.
        """
        try:
            self.batcher.submit(request, alone=alone, admitted=admitted)
        except NotReady:
            if last:
                raise
            return False
        return True

    def cancel(self, request: Request) -> None:
        """Drop a request that nobody waits for."""
        self.batcher.cancel(request)


@dataclass(frozen=True)
class Limits:
    """How the batcher and the decoder of every model version are built; see Settings."""

    max_batch: int
    max_queue: int
    max_queue_bytes: int
    max_delay_s: float
    max_pixels: int
    max_decoder_bytes: int

    def images(self, image_bytes: int, max_batch: int) -> int:
        """Most images of so many bytes, as pixels, in a queue; one batch may always wait."""
        return min(self.max_queue, max(max_batch, self.max_queue_bytes // image_bytes))


class Repository:
    """Loads what the folder has, and answers who serves what.

    Args:
        folder: of bundles, NAME/VERSION/model.onnx.
        load: makes an engine of a model file; raises EngineError.
        limits: for batchers and decoders.
        versions: newest versions of each model that are served.
        on_change: called after every change with the names of all models that are served.
    """

    def __init__(
        self,
        folder: Path,
        load: Loader,
        limits: Limits,
        versions: int = 1,
        on_change: Callable[[frozenset[str]], None] = lambda names: None,
    ) -> None:
        self._folder = folder
        self._load_engine = load
        self._limits = limits
        self._versions = versions
        self._on_change = on_change
        # Replaced as a whole, so that readers need no lock.
        self._loaded: Versions = MappingProxyType({})
        self._loading: frozenset[str] = frozenset()
        # What could not be loaded, by path and the file's identity: tried again when it changes.
        self._refused: dict[Path, tuple[int, int, int]] = {}
        self._folder_problem = ""
        #: Whether the last scan found no bundle, not even one that cannot be served.
        self.folder_is_empty = False
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def get(self, name: str, version: int | None) -> ModelVersion:
        """The version of a model that is asked for, or its newest.

        Raises:
            NotReady: if the model is being loaded.
            NotFound: if there is none; says what there is.
        """
        versions = self._loaded.get(name)
        if versions is not None:
            if version is None:
                return versions[max(versions)]
            if version in versions:
                return versions[version]
            there = listed([str(number) for number in sorted(versions)])
            raise NotFound(
                "version",
                f"{name}/{version}",
                f"model {name} has no version {version}; loaded: {there}",
            )
        if name in self._loading:
            raise NotReady(f"model {name} is being loaded")
        there = listed(sorted(self._loaded))
        raise NotFound("model", name, f"no model {quoted(name)}; loaded: {there}")

    def models(self) -> list[ModelVersion]:
        """All that is loaded, by name, then newest first."""
        return [
            versions[number]
            for _, versions in sorted(self._loaded.items())
            for number in sorted(versions, reverse=True)
        ]

    def scan(self) -> None:
        """Compare the folder with what is loaded; load, replace and unload."""
        wanted = self._wanted()
        # A version that is refused makes room for an older one, hence again until all is settled.
        while wanted is not None and (missing := self._missing(wanted)):
            self._loading = frozenset(name for name, _, _ in missing)
            for name, version, path in missing:
                model = self._load(name, version, path)
                if model is not None:
                    there = self._loaded.get(name, {})
                    self._replace({**self._loaded, name: {**there, version: model}})
            wanted = self._wanted()
        self._loading = frozenset()
        if wanted is not None:
            self._retire(wanted)

    def watch(self, interval_s: float) -> None:
        """Scan in a thread from now on. Polling also works on network volumes; inotify does not."""

        def loop() -> None:
            while not self._stop.wait(interval_s):
                try:
                    self.scan()
                except Exception:
                    # The next scan may do better; the models that are loaded still serve.
                    log.exception("scanning %s failed", self._folder)

        self._watcher = threading.Thread(target=loop, name="repository", daemon=True)
        self._watcher.start()

    def close(self, timeout_s: float) -> None:
        """Stop watching and let every batcher finish, each at most so long."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join(timeout_s)
        for model in self.models():
            model.batcher.close()
        for model in self.models():
            if not model.batcher.join(timeout_s):
                log.warning("%s/%d: still busy at the end", model.name, model.version)

    def _wanted(self) -> dict[str, dict[int, Path]] | None:
        """The newest versions of each model in the folder that were not refused.

        None if the folder cannot be read: a volume that is gone for a while unloads nothing.
        """
        try:
            bundles = list_bundles(self._folder)
        except OSError as error:
            problem = (
                f"cannot read the models folder {self._folder} as user {os.getuid()}: "
                f"{error.strerror}"
            )
            if problem != self._folder_problem:
                log.error(problem)
            self._folder_problem = problem
            return None
        self._folder_problem = ""
        self.folder_is_empty = not bundles
        wanted = {}
        for name, versions in bundles.items():
            usable = [
                n for n, path in versions.items() if self._refused.get(path) != _identity(path)
            ]
            wanted[name] = {n: versions[n] for n in sorted(usable)[-self._versions :]}
        return wanted

    def _missing(self, wanted: Mapping[str, Mapping[int, Path]]) -> list[tuple[str, int, Path]]:
        return [
            (name, version, path)
            for name, versions in sorted(wanted.items())
            for version, path in versions.items()
            if version not in self._loaded.get(name, {})
        ]

    def _load(self, name: str, version: int, path: Path) -> ModelVersion | None:
        """Load and warm a version; None, and a line in the log, if it cannot be served."""
        identity = _identity(path)
        try:
            engine = self._load_engine(path)
            manifest = check_manifest(engine.metadata, engine.image_shape, engine.classes)
            engine.warm_up()
        except (BundleError, EngineError) as error:
            log.error("%s/%d is not served: %s", name, version, error)
            self._refused[path] = identity
            return None
        except Exception:
            log.exception("%s/%d is not served", name, version)
            self._refused[path] = identity
            return None
        self._refused.pop(path, None)
        max_batch = min(self._limits.max_batch or engine.max_batch, engine.max_batch)
        batcher = Batcher(
            engine.run,
            max_batch=max_batch,
            max_queue=self._limits.images(math.prod(engine.image_shape), max_batch),
            max_delay_s=self._limits.max_delay_s,
            name=f"model {name}/{version}",
            parallel=engine.parallel,
        )
        log.info(
            "%s/%d is served by %s, batches of up to %d, a queue of up to %d images",
            name, version, engine.provider, batcher.max_batch, batcher.max_queue,
        )  # fmt: skip
        header = ClassifyResponse(model=name, version=version, labels=manifest.labels)
        decode = decoder_for(
            manifest.input, self._limits.max_pixels, self._limits.max_decoder_bytes
        )
        return ModelVersion(
            name, version, manifest, engine, batcher, decode, header.SerializeToString()
        )

    def _retire(self, wanted: Mapping[str, Mapping[int, Path]]) -> None:
        """Unload what is no longer wanted."""
        retired = [m for m in self.models() if m.version not in wanted.get(m.name, {})]
        if not retired:
            return
        keep = {
            name: {n: model for n, model in versions.items() if n in wanted.get(name, {})}
            for name, versions in self._loaded.items()
        }
        self._replace({name: versions for name, versions in keep.items() if versions})
        for model in retired:
            model.batcher.close()
            log.info("%s/%d is unloaded", model.name, model.version)

    def _replace(self, loaded: Versions) -> None:
        self._loaded = MappingProxyType(dict(loaded))
        self._on_change(frozenset(loaded))


def _identity(path: Path) -> tuple[int, int, int]:
    """Changes whenever the file does; zeros if it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
