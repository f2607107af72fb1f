"""Keeps what a repository serves as a models folder has it.

A scan compares the two: new versions are loaded and warmed off the request path and take over when
they are ready, old ones finish what they have accepted. A version that cannot be loaded is logged
and leaves the ones that serve alone. So does an entry that cannot be read.

Only what was removed is unloaded. A folder that is empty because another file system, or none, is
mounted there, is not a removal: a cluster should go on serving until its volume is back.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from convserve_bundle.errors import BundleError
from convserve_bundle.folder import Listing
from convserve_server.core.digests import Digests
from convserve_server.core.models import ModelVersion
from convserve_server.core.models_folder import ModelsFolder
from convserve_server.core.permits import Bundle, Permits
from convserve_server.core.policies import ModelPolicy
from convserve_server.core.repository import Repository
from convserve_server.engines.base import EngineError, LoadedModel

log = logging.getLogger(__name__)

#: Makes a warm and checked model of a model's name and file; raises EngineError or BundleError.
Load = Callable[[str, Path], LoadedModel]

#: Longest wait for another worker that tries a version first, while no other one is loaded, s. Also
#: until a model that is slow to load no longer keeps the others waiting.
_PATIENCE_S = 5.0


class FolderLoader:
    """Loads what the folder has into a repository.

    Args:
        folder: of bundles, NAME/VERSION/model.onnx.
        load: makes a model of a file.
        repository: that serves it.
        permits: allow bundles to be loaded.
        policy: what the operator wants of a model.
    """

    def __init__(
        self,
        folder: Path,
        load: Load,
        repository: Repository,
        permits: Permits,
        policy: Callable[[str], ModelPolicy] = lambda name: ModelPolicy(),
    ) -> None:
        self._load_model = load
        self._repository = repository
        self._permits = permits
        self._policy = policy
        self._folder = ModelsFolder(folder, permits.problem)
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
        repository.refused = self.refused

    @property
    def folder_is_empty(self) -> bool:
        """Whether the last scan found no bundle, not even one that cannot be served."""
        return self._folder.is_empty

    def refused(self) -> dict[tuple[str, int], str]:
        """Returns the versions that are in the folder and not served, and why."""
        with self._lock:
            refused = sorted(self._refused.items())
        return {
            (path.parent.parent.name, int(path.parent.name)): reason
            for path, (_, reason) in refused
        }

    def awaited(self) -> frozenset[str]:
        """Returns the models that are not loaded because another worker tries a version first."""
        names = list(self._awaited.items())
        return frozenset(
            name for name, waits in names if waits and name not in self._repository.loaded
        )

    def scan(self) -> None:
        """Compares the folder with what is loaded; loads, replaces and unloads."""
        self._news.clear()
        listing = self._folder.look(frozenset(self._repository.loaded))
        if listing is None:
            return
        loading = {
            name for name, versions in listing.bundles.items() if self._candidates(name, versions)
        }
        self._repository.loading = frozenset(loading | self._updates.keys())
        try:
            for name, versions in sorted(listing.bundles.items()):
                if name in self._updates:
                    continue
                if name in loading:
                    self._update_in_thread(name, versions)
                else:
                    self._update(name, versions)
        finally:
            self._repository.loading = frozenset(self._updates)
        self._retire(listing)
        files = {path for versions in listing.bundles.values() for path in versions.values()}
        self._digests.keep(files)
        with self._lock:
            self._refused = {path: why for path, why in self._refused.items() if path in files}

    def scan_now(self) -> None:
        """Lets the thread of watch() scan at once, or that of wait_for_news() go on."""
        self._news.set()

    def wait_for_news(self, timeout_s: float) -> None:
        """Waits until scan_now() is called, at most so long."""
        self._news.wait(timeout_s)

    def watch(self, interval_s: float) -> None:
        """Scans in a thread from now on. Polling also works on network volumes, unlike inotify."""

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
        """Stops watching; waits for each thread at most so long."""
        self._stop.set()
        self._news.set()
        for thread in (self._watcher, *list(self._updates.values())):
            if thread is not None:
                thread.join(timeout_s)

    def _loaded(self, name: str) -> Mapping[int, ModelVersion]:
        return self._repository.loaded.get(name, {})

    def _candidates(self, name: str, versions: Mapping[int, Path]) -> list[int]:
        """Returns the versions to be served if they can be, newest first, that are not loaded."""
        usable = [n for n in versions if not self._is_refused(versions[n])]
        return [n for n in self._policy(name).select(usable) if n not in self._loaded(name)]

    def _is_refused(self, path: Path) -> bool:
        refused = self._refused.get(path)
        try:
            return refused is not None and refused[0] == self._digests.read(path)
        except OSError:
            return False

    def _update_in_thread(self, name: str, versions: Mapping[int, Path]) -> None:
        """Loads in a thread of its own; waits for it, but not for ever."""

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
        """Loads the versions of a model that are wanted, of those that can be served."""
        outcomes: dict[int, bool | None] = {}

        def left() -> int | None:
            usable = [n for n in versions if outcomes.get(n, True)]
            return next((n for n in self._policy(name).select(usable) if n not in outcomes), None)

        while (version := left()) is not None:
            outcomes[version] = self._serve(name, version, versions[version])
        self._awaited[name] = None in outcomes.values()

    def _serve(self, name: str, version: int, path: Path) -> bool | None:
        """Loads a version unless it is loaded; returns None if another worker tries it first."""
        model = self._loaded(name).get(version)
        try:
            bundle = Bundle(name, version, self._digests.read(path))
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
        verdict = self._permits.ask(bundle, 0.0 if self._loaded(name) else _PATIENCE_S)
        if verdict.verdict == "wait":
            return None
        if verdict.verdict == "refused":
            self._refuse(bundle, path, verdict.reason)
            return False
        loaded = self._load(bundle, path)
        if loaded is None:
            return False
        self._repository.add(bundle, loaded)
        return True

    def _refuse(self, bundle: Bundle, path: Path, reason: str) -> None:
        with self._lock:
            self._refused[path] = bundle.digest, reason

    def _refuse_replacement(self, bundle: Bundle) -> None:
        """Reports that the file of a version that is served has changed; it is never loaded."""
        if self._permits.ask(bundle, 0.0).verdict == "load":
            self._permits.failed(bundle, "its file was replaced while it was served")

    def _load(self, bundle: Bundle, path: Path) -> LoadedModel | None:
        """Loads a version; returns None, and logs why, if it cannot be served."""
        try:
            loaded = self._load_model(bundle.name, path)
            if self._digests.read(path) != bundle.digest:
                raise BundleError(f"{path} changed while it was loaded")
        except (BundleError, EngineError) as error:
            reason = str(error)
            log.error("%s is not served: %s", bundle, error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.exception("%s is not served", bundle)
        else:
            self._permits.loaded(bundle)
            return loaded
        self._refuse(bundle, path, reason)
        self._permits.failed(bundle, reason)
        return None

    def _retire(self, listing: Listing) -> None:
        """Unloads what was removed, and what newer versions have replaced."""

        def keep(name: str, versions: Mapping[int, ModelVersion]) -> list[int]:
            there = listing.bundles.get(name, {})
            known = [n for n in versions if n in there or not listing.knows(name, n)]
            return list(self._policy(name).select(known))

        self._repository.retain(keep)
