"""Loads versions of models off the request path, each on a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from convserve_bundle import held_model
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import HeldModel, Model
from convserve_host.memory import own_bytes
from convserve_server.core.descriptions import Findings
from convserve_server.core.digests import Digests
from convserve_server.core.repository import Repository
from convserve_server.core.tables import Bundle
from convserve_server.engines.base import EngineError, Loaded

log = logging.getLogger(__name__)

#: Makes a warm and checked model of a model's name, its file, and the seconds that its batches
#: take by their size, if they are known; raises EngineError, BundleError or OSError.
Load = Callable[[str, Model, Mapping[int, float]], Loaded]


class Preparer:
    """Loads versions into a repository, which holds them until a table has them.

    A thread each, so that one that hangs holds up no other.

    Args:
        load: makes a model of a file.
        repository: that holds it.
        prepared: called with a version that is loaded and warm, and what was found out by that.
        failed: called with a version that cannot be served, and why.
        held_bytes: most bytes of a version that is read into memory, compared with its digest
            there, and made a model of: what was verified is what is served, whoever writes into
            the folder meanwhile. 0: its files are read by the engine, and compared before and
            after.
    """

    def __init__(
        self,
        load: Load,
        repository: Repository,
        prepared: Callable[[Bundle, Findings], None],
        failed: Callable[[Bundle, str], None],
        held_bytes: int = 0,
    ) -> None:
        self._load = load
        self._repository = repository
        self._prepared = prepared
        self._failed = failed
        self._held_bytes = held_bytes
        self._digests = Digests()
        self._threads: set[threading.Thread] = set()

    def prepare(self, bundle: Bundle, path: Path, batch_s: Mapping[int, float]) -> None:
        """Begins to load a version; prepared or failed is called at the end.

        Args:
            bundle: that the file should hold.
            path: of the file.
            batch_s: seconds by size of batch, if they are known.
        """

        def run() -> None:
            try:
                self._prepare(bundle, path, batch_s)
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"load {bundle}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def close(self, timeout_s: float) -> None:
        """Waits for what is being loaded, at most so long."""
        end = time.monotonic() + timeout_s
        for thread in list(self._threads):
            thread.join(max(0.0, end - time.monotonic()))

    def _prepare(self, bundle: Bundle, path: Path, batch_s: Mapping[int, float]) -> None:
        try:
            before = own_bytes()
            loaded = (self._load_held if self._held_bytes else self._load_file)(
                bundle, path, batch_s
            )
            description = self._repository.hold(bundle, loaded)
            memory_bytes = max(0, own_bytes() - before)
        except (BundleError, EngineError, OSError) as error:
            reason = str(error)
            log.error("%s is not served: %s", bundle, error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.exception("%s is not served", bundle)
        else:
            findings = Findings(description, loaded.batch_s, memory_bytes, loaded.advice)
            self._prepared(bundle, findings)
            return
        self._failed(bundle, reason)

    def _load_file(self, bundle: Bundle, path: Path, batch_s: Mapping[int, float]) -> Loaded:
        self._check(bundle, path, self._digests.read(path).digest)
        loaded = self._load(bundle.name, path, batch_s)
        self._check(bundle, path, self._digests.read(path).digest)
        return loaded

    def _load_held(self, bundle: Bundle, path: Path, batch_s: Mapping[int, float]) -> Loaded:
        held: HeldModel = held_model.hold(path, self._held_bytes)
        try:
            self._check(bundle, path, held_model.digest_of_held(held))
            return self._load(bundle.name, held, batch_s)
        finally:
            # Engines keep what could make another session of it.
            held.release()

    def _check(self, bundle: Bundle, path: Path, digest: str) -> None:
        """Refuses files that are not those that were to be loaded."""
        if digest != bundle.digest:
            raise BundleError(f"{path} changed while it was loaded")
