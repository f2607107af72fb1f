"""The control of a process without a supervisor: it decides for itself what it serves."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

from convserve_bundle.signing import Trust
from convserve_server.core.administration import Administration, Done, VersionStatus
from convserve_server.core.descriptions import Findings
from convserve_server.core.policies import ModelPolicy
from convserve_server.core.preparer import Preparer
from convserve_server.core.repository import Repository
from convserve_server.core.tables import Bundle
from convserve_server.process.control_plane import PATIENCE_S, ControlPlane, ToMember
from convserve_server.process.memory_check import MemoryCheck
from convserve_server.process.messages import Commit, Prepare, Retire, Stage
from convserve_server.process.operations import Operations
from convserve_server.process.scan import Scan, Scanner

log = logging.getLogger(__name__)

#: The only worker.
_SELF = 1


class _NoTimes:
    """See TimesByBundle."""

    def get(self, bundle: Bundle) -> Mapping[int, float]:
        del bundle
        return {}

    def put(self, bundle: Bundle, batch_s: Mapping[int, float]) -> None:
        pass


class _LocalAdministration:
    """Operations on another thread's plane; see Administration.

    Args:
        operations: Of the plane.
        put: Has a function called with the time on the plane's thread.
    """

    def __init__(
        self, operations: Operations, put: Callable[[Callable[[float], object]], None]
    ) -> None:
        self._operations = operations
        self._put = put

    def load(self, name: str, version: int | None, done: Done) -> None:
        self._put(lambda _: self._operations.load(name, version, done))

    def unload(self, name: str, version: int | None, done: Done) -> None:
        self._put(lambda _: self._operations.unload(name, version, done))

    def set_label(self, name: str, label: str, version: int | None, done: Done) -> None:
        self._put(lambda _: self._operations.set_label(name, label, version, done))

    def statuses(self, done: Callable[[list[VersionStatus]], None]) -> None:
        self._put(lambda _: self._operations.statuses(done))


class LocalControl:
    """A control plane with one worker, this process; see Control.

    Args:
        folder: Of models.
        policy: What the operator wants of a model.
        scan_s: How often to look for new versions, once watch() has been called.
        load_timeout_s: See Operations.
        trust: See Scanner.
    """

    def __init__(
        self,
        folder: Path,
        policy: Callable[[str], ModelPolicy],
        scan_s: float = 1.0,
        load_timeout_s: float = 60.0,
        trust: Trust | None = None,
    ) -> None:
        #: The number of the table that counts.
        self.switch = [0]
        self._folder = folder
        self._scan_s = scan_s
        # It measures each version itself.
        self._plane = ControlPlane(
            policy, self._send, self._write, _NoTimes(), memory=MemoryCheck()
        )
        self._scanner = Scanner(folder, lambda: self._plane.interest, self._on_scan, trust)
        # What the plane is to hear of other threads; the thread that has the lock passes it on.
        self._inbox: queue.SimpleQueue[Callable[[float], object]] = queue.SimpleQueue()
        #: See Control; its answers come once watch() has been called.
        self.administration: Administration = _LocalAdministration(
            Operations(self._plane, load_timeout_s), self._inbox.put
        )
        self._lock = threading.RLock()
        self._listen = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def attach(self, repository: Repository, preparer: Preparer) -> None:
        """See Control.attach."""
        self._repository, self._preparer = repository, preparer
        with self._lock:
            self._plane.on_join(_SELF, time.monotonic())

    def on_prepared(self, bundle: Bundle, findings: Findings) -> None:
        """See Control.on_prepared."""
        self._inbox.put(lambda now: self._plane.on_prepared(_SELF, bundle, findings, now))

    def on_failed(self, bundle: Bundle, reason: str) -> None:
        """See Control.on_failed."""
        self._inbox.put(lambda now: self._plane.on_failed(_SELF, bundle, reason, now))

    def on_retired(self, bundle: Bundle) -> None:
        """See Control.on_retired."""
        self._inbox.put(lambda _: self._plane.on_retired(_SELF, bundle))

    def on_wanted(self, name: str) -> None:
        """See Control.on_wanted."""
        self._inbox.put(lambda now: self._plane.on_wanted(name, now))

    def wait_to_listen(self, stop: threading.Event) -> bool:
        """See Control.wait_to_listen."""
        while not self._listen.is_set() and not stop.is_set():
            self.scan()
            self.wait(0.01)
        return not stop.is_set()

    def scan(self) -> None:
        """Looks at the folder, and waits until what is new is served, but not for ever."""
        with self._lock:
            end = time.monotonic() + PATIENCE_S
            self._plane.on_used(_SELF, self._repository.used(), time.monotonic())
            self._scanner.scan()
            while True:
                while self._plane.interest.unread:
                    self._scanner.scan()
                left = end - time.monotonic()
                # What is not in the inbox may be in the hands of another thread, in wait().
                if left <= 0 or not (self._plane.is_busy or not self._inbox.empty()):
                    break
                self.wait(left)
            self._plane.advance(time.monotonic())

    def wait(self, timeout_s: float) -> None:
        """Waits for something to happen, at most so long, and does what follows."""
        try:
            event = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return
        if not self._lock.acquire(blocking=False):
            # Another thread scans, and waits for this.
            self._inbox.put(event)
            with self._lock:
                return
        try:
            event(time.monotonic())
        finally:
            self._lock.release()

    def watch(self) -> None:
        """See Control.watch."""
        self._thread = threading.Thread(target=self._loop, name="models folder", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """See Control.close."""
        self._stop.set()
        self._inbox.put(lambda _: None)
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._preparer.close(timeout_s)

    def _loop(self) -> None:
        while not self._stop.is_set():
            end = time.monotonic() + self._scan_s
            try:
                self.scan()
                while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
                    self.wait(left)
            except Exception:
                # The next scan may do better; the models that are loaded still serve.
                log.exception("scanning %s failed", self._folder)
                self._stop.wait(self._scan_s)

    def _on_scan(self, scan: Scan | None) -> None:
        self._plane.on_scan(scan, time.monotonic())

    def _write(self, number: int) -> None:
        self.switch[0] = number

    def _send(self, key: Hashable, message: ToMember) -> None:
        del key
        if isinstance(message, Prepare):
            self._preparer.prepare(message.bundle, Path(message.path), message.batch_s)
        elif isinstance(message, Stage):
            number = message.table.generation
            if self._repository.stage(message.table):
                self._inbox.put(lambda now: self._plane.on_staged(_SELF, number, now))
        elif isinstance(message, Commit):
            self._repository.settle()
        elif isinstance(message, Retire):
            self._repository.drop(message.bundle)
        else:
            self._listen.set()
