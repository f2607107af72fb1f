"""The models folder, and the versions that are loaded from it.

A scan compares the two: new versions are loaded and warmed off the request path and take over when
they are ready, old ones finish what they have accepted. A version that cannot be loaded is logged
and leaves the ones that serve alone. So does an entry that cannot be read.

Only what was removed is unloaded. A folder that is empty because another file system, or none, is
mounted there is no reason: somebody who runs a cluster wants to go on serving until it is back.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from convserve_bundle.errors import BundleError
from convserve_bundle.folder import Listing
from convserve_bundle.manifest import check_manifest
from convserve_protos.bundle_pb2 import Manifest
from convserve_protos.classifier_pb2 import ClassifyResponse
from convserve_server.batching.batcher import Batcher
from convserve_server.batching.request import Request
from convserve_server.decode.decoders import decoder_for
from convserve_server.decode.decoding import Decode
from convserve_server.digests import Digests
from convserve_server.engines.engine import Engine
from convserve_server.engines.session_engine import EngineError
from convserve_server.errors import NotFound, NotReady, listed, quoted
from convserve_server.models_folder import ModelsFolder
from convserve_server.outputs import check_outputs, probes
from convserve_server.process.messages import Bundle
from convserve_server.process.permits import Permits, SingleProcess

log = logging.getLogger(__name__)

Loader = Callable[[Path], Engine]
Versions = Mapping[str, Mapping[int, "ModelVersion"]]

#: Longest wait for another worker that tries a version first, while no other one is loaded, s. Also
#: until a model that is slow to load no longer keeps the others waiting.
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class ModelVersion:
    """A loaded version of a model, warm and with its queue."""

    name: str
    version: int
    manifest: Manifest
    #: SHA-256 of the file, hexadecimal.
    digest: str
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
        permits: allow bundles to be loaded.
    """

    def __init__(
        self,
        folder: Path,
        load: Loader,
        limits: Limits,
        versions: int = 1,
        on_change: Callable[[frozenset[str]], None] = lambda names: None,
        permits: Permits | None = None,
    ) -> None:
        self._load_engine = load
        self._limits = limits
        self._versions = versions
        self._on_change = on_change
        self._permits = SingleProcess() if permits is None else permits
        self._folder = ModelsFolder(folder, self._permits.problem)
        # Replaced as a whole, so that readers need no lock.
        self._loaded: Versions = MappingProxyType({})
        self._loading: frozenset[str] = frozenset()
        self._digests = Digests()
        # What could not be loaded, by file and digest: tried again when it changes.
        self._refused: dict[Path, tuple[str, str]] = {}
        # Models of which another worker tries a version that this one waits for.
        self._awaited: dict[str, bool] = {}
        # Threads that load versions of a model; one each, so that one that hangs holds up no other.
        self._updates: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        # Model files that cannot be read, and why, as was reported.
        self._unread: dict[Path, str] = {}
        self._stop = threading.Event()
        self._news = threading.Event()
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

    @property
    def folder_is_empty(self) -> bool:
        """Whether the last scan found no bundle, not even one that cannot be served."""
        return self._folder.is_empty

    def refused(self) -> dict[tuple[str, int], str]:
        """Versions that are in the folder and not served, and why, by name and version."""
        with self._lock:
            refused = sorted(self._refused.items())
        return {
            (path.parent.parent.name, int(path.parent.name)): reason
            for path, (_, reason) in refused
        }

    def awaited(self) -> frozenset[str]:
        """Models of which nothing is loaded because another worker tries a version first."""
        names = list(self._awaited.items())
        return frozenset(name for name, waits in names if waits and name not in self._loaded)

    def scan(self) -> None:
        """Compare the folder with what is loaded; load, replace and unload."""
        self._news.clear()
        listing = self._folder.look(frozenset(self._loaded))
        if listing is None:
            return
        loading = {name for name, there in listing.bundles.items() if self._candidates(name, there)}
        self._loading = frozenset(loading | self._updates.keys())
        try:
            for name, versions in sorted(listing.bundles.items()):
                if name in self._updates:
                    continue
                if name in loading:
                    self._update_aside(name, versions)
                else:
                    self._update(name, versions)
        finally:
            self._loading = frozenset(self._updates)
        self._retire(listing)
        files = {path for versions in listing.bundles.values() for path in versions.values()}
        self._digests.keep(files)
        with self._lock:
            self._refused = {path: why for path, why in self._refused.items() if path in files}

    def look_now(self) -> None:
        """Let the thread of watch() scan at once, or that of wait_for_news() go on."""
        self._news.set()

    def wait_for_news(self, timeout_s: float) -> None:
        """Wait until look_now() is called, at most so long."""
        self._news.wait(timeout_s)

    def watch(self, interval_s: float) -> None:
        """Scan in a thread from now on. Polling also works on network volumes; inotify does not."""

        def loop() -> None:
            while True:
                self._news.wait(interval_s)
                if self._stop.is_set():
                    return
                try:
                    self.scan()
                except Exception:
                    self._news.clear()
                    # The next scan may do better; the models that are loaded still serve.
                    log.exception("scanning %s failed", self._folder.path)

        self._watcher = threading.Thread(target=loop, name="repository", daemon=True)
        self._watcher.start()

    def close(self, timeout_s: float) -> None:
        """Stop watching and let every batcher finish, each at most so long."""
        self._stop.set()
        self._news.set()
        for thread in (self._watcher, *list(self._updates.values())):
            if thread is not None:
                thread.join(timeout_s)
        for model in self.models():
            model.batcher.close()
        for model in self.models():
            if not model.batcher.join(timeout_s):
                log.warning("%s/%d: still busy at the end", model.name, model.version)

    def _candidates(self, name: str, versions: Mapping[int, Path]) -> list[int]:
        """The versions that are to be served if they can be, newest first, and are not loaded."""
        newest = sorted(versions, reverse=True)
        usable = [n for n in newest if not self._is_refused(versions[n])][: self._versions]
        return [n for n in usable if n not in self._loaded.get(name, {})]

    def _is_refused(self, path: Path) -> bool:
        refused = self._refused.get(path)
        try:
            return refused is not None and refused[0] == self._digests.of(path)
        except OSError:
            return False

    def _update_aside(self, name: str, versions: Mapping[int, Path]) -> None:
        """Load on a thread of its own; wait for it, but not for ever."""

        def update() -> None:
            try:
                self._update(name, versions)
            except Exception:
                # The next scan may do better; the models that are loaded still serve.
                log.exception("loading %s failed", name)
            finally:
                del self._updates[name]
                self._news.set()

        thread = threading.Thread(target=update, name=f"load {name}", daemon=True)
        self._updates[name] = thread
        thread.start()
        thread.join(_PATIENCE_S)

    def _update(self, name: str, versions: Mapping[int, Path]) -> None:
        """Load the newest versions of a model that can be served, and no more than are wanted."""
        kept, waits = 0, False
        for version in sorted(versions, reverse=True):
            if kept == self._versions:
                break
            outcome = self._serve(name, version, versions[version])
            kept += outcome is True
            waits = waits or outcome is None
        self._awaited[name] = waits

    def _serve(self, name: str, version: int, path: Path) -> bool | None:
        """Load a version unless it is loaded; None if another worker tries it first."""
        model = self._loaded.get(name, {}).get(version)
        try:
            bundle = Bundle(name, version, self._digests.of(path))
        except OSError as error:
            problem = f"{path} cannot be read: {error.strerror or error}"
            if self._unread.get(path) != problem:
                self._permits.problem(f"{name}/{version}/", problem)
            self._unread[path] = problem
            return model is not None
        if self._unread.pop(path, None):
            self._permits.problem(f"{name}/{version}/", "")
        if model is not None:
            if model.digest != bundle.digest:
                self._refuse_replacement(bundle)
            return True
        if self._refused.get(path, ("",))[0] == bundle.digest:
            return False
        verdict = self._permits.ask(bundle, 0.0 if name in self._loaded else _PATIENCE_S)
        if verdict.verdict == "wait":
            return None
        if verdict.verdict == "refused":
            self._refuse(bundle, path, verdict.reason)
            return False
        model = self._load(bundle, path)
        if model is None:
            return False
        with self._lock:
            there = self._loaded.get(name, {})
            self._replace({**self._loaded, name: {**there, version: model}})
        return True

    def _refuse(self, bundle: Bundle, path: Path, reason: str) -> None:
        with self._lock:
            self._refused[path] = bundle.digest, reason

    def _refuse_replacement(self, bundle: Bundle) -> None:
        """Report that the file of a version that is served has changed; it is never loaded."""
        if self._permits.ask(bundle, 0.0).verdict == "load":
            self._permits.failed(bundle, "its file was replaced while it was served")

    def _load(self, bundle: Bundle, path: Path) -> ModelVersion | None:
        """Load and warm a version; None, and a line in the log, if it cannot be served."""
        reason = ""
        try:
            engine = self._load_engine(path)
            manifest = check_manifest(engine.metadata, engine.image_shape, engine.classes)
            engine.warm_up()
            images = probes(engine.image_shape)
            for first in range(0, len(images), engine.max_batch):
                check_outputs(manifest, engine.run([images[first : first + engine.max_batch]]))
            if self._digests.of(path) != bundle.digest:
                raise BundleError(f"{path} changed while it was loaded")
        except (BundleError, EngineError) as error:
            reason = str(error)
            log.error("%s is not served: %s", bundle, error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.exception("%s is not served", bundle)
        if reason:
            self._refuse(bundle, path, reason)
            self._permits.failed(bundle, reason)
            return None
        self._permits.loaded(bundle)
        return self._model(bundle, engine, manifest)

    def _model(self, bundle: Bundle, engine: Engine, manifest: Manifest) -> ModelVersion:
        max_batch = min(self._limits.max_batch or engine.max_batch, engine.max_batch)
        batcher = Batcher(
            engine.run,
            max_batch=max_batch,
            max_queue=self._limits.images(math.prod(engine.image_shape), max_batch),
            max_delay_s=self._limits.max_delay_s,
            name=f"model {bundle}",
            parallel=engine.parallel,
        )
        log.info(
            "%s is served by %s, batches of up to %d, a queue of up to %d images",
            bundle, engine.provider, batcher.max_batch, batcher.max_queue,
        )  # fmt: skip
        header = ClassifyResponse(
            model=bundle.name, version=bundle.version, labels=manifest.labels
        ).SerializeToString()
        decode = decoder_for(
            manifest.input, self._limits.max_pixels, self._limits.max_decoder_bytes
        )
        return ModelVersion(
            bundle.name, bundle.version, manifest, bundle.digest, engine, batcher, decode, header
        )

    def _retire(self, listing: Listing) -> None:
        """Unload what was removed, and what newer versions have replaced."""
        keep: dict[str, dict[int, ModelVersion]] = {}
        with self._lock:
            for name, versions in self._loaded.items():
                there = listing.bundles.get(name, {})
                known = [n for n in versions if n in there or not listing.knows(name, n)]
                newest = sorted(known, reverse=True)[: self._versions]
                if newest:
                    keep[name] = {n: versions[n] for n in newest}
            retired = [m for m in self.models() if m.version not in keep.get(m.name, {})]
            if not retired:
                return
            self._replace(keep)
        for model in retired:
            model.batcher.close()
            log.info("%s/%d is unloaded", model.name, model.version)

    def _replace(self, loaded: Versions) -> None:
        """Serve these from now on. Called with the lock."""
        self._loaded = MappingProxyType(dict(loaded))
        self._permits.serves(tuple(Bundle(m.name, m.version, m.digest) for m in self.models()))
        self._on_change(frozenset(loaded))
