"""Workers of a control plane that a test moves step by step, and the memory that they share."""

from collections import deque
from collections.abc import Hashable, Mapping
from pathlib import Path

from convserve_bundle.labels_file import VersionLabels
from convserve_server.core.descriptions import Findings, ModelDescription, signature_of_images
from convserve_server.core.policies import ModelPolicy
from convserve_server.core.tables import Bundle, Table
from convserve_server.process.control_plane import ControlPlane, ToMember
from convserve_server.process.memory_check import MemoryCheck
from convserve_server.process.messages import Commit, Prepare, Retire, Stage
from convserve_server.process.scan import Scan

FOLDER = Path("/models")


def bundle(text: str, content: str = "") -> Bundle:
    """The bundle "NAME/VERSION"; files of different content have different digests."""
    name, _, version = text.partition("/")
    return Bundle(name, int(version), (content or text).ljust(64, "."))


class FakeWorker:
    """Does with messages what a worker does, when the test has it read one.

    Args:
        server: that it belongs to.
        key: its own.
    """

    def __init__(self, server: "FakeServer", key: Hashable) -> None:
        self._server = server
        self.key = key
        self.inbox: deque[ToMember] = deque()
        #: What it was sent to load.
        self.loading: list[Prepare] = []
        self.loaded: set[Bundle] = set()
        self.table = Table()
        self.listens = False
        self._staged: Table | None = None
        # What the table before had, until it is to unload it.
        self._gone: frozenset[Bundle] = frozenset()

    def read(self) -> None:
        """Act on the first message that was not read."""
        message = self.inbox.popleft()
        plane, now = self._server.plane, self._server.now
        if isinstance(message, Prepare):
            self.loading.append(message)
            plane.on_loading(self.key, message.bundle, now)
        elif isinstance(message, Stage):
            self._apply()
            missing = message.table.bundles - self.loaded
            assert not missing, missing
            self._staged = message.table
            plane.on_staged(self.key, message.table.generation, now)
        elif isinstance(message, Commit):
            self._apply()
            assert self.table.generation >= message.generation
            for gone in self._gone:
                self.loaded.discard(gone)
                plane.on_retired(self.key, gone)
            self._gone = frozenset()
        elif isinstance(message, Retire):
            assert message.bundle not in self.table.bundles or not self.listens
            self.loaded.discard(message.bundle)
            plane.on_retired(self.key, message.bundle)
        else:
            self.listens = True

    def finish(
        self,
        batch_s: Mapping[int, float] | None = None,
        *,
        at: int = 0,
        memory_bytes: int = 0,
        advice: str = "",
    ) -> None:
        """Finish what it has been loading for longest, or another one."""
        one = self.loading.pop(at).bundle
        self.loaded.add(one)
        description = ModelDescription(
            one.name, one.version, ("a", "b"), (2, 2, 1), 2, "CPU", b"",
            signature_of_images((2, 2, 1), 2), 64,
        )  # fmt: skip
        findings = Findings(description, batch_s or {}, memory_bytes, advice)
        self._server.plane.on_prepared(self.key, one, findings, self._server.now)

    def fail(self, reason: str = "is garbage") -> None:
        """Fail with what it has been loading for longest."""
        one = self.loading.pop(0).bundle
        self._server.plane.on_failed(self.key, one, reason, self._server.now)

    def answer(self, name: str = "mnist") -> int | None:
        """The version that answers a call that begins now; None for an error."""
        self._apply()
        version = self.table.default(name)
        if version is not None:
            assert self.table.versions(name)[version] in self.loaded
        return version

    def _apply(self) -> None:
        if self._staged is not None and self._staged.generation == self._server.number:
            self._gone |= self.table.bundles - self._staged.bundles
            self.table, self._staged = self._staged, None


class FakeTimes:
    """Keeps times by digest."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[int, float]] = {}

    def get(self, one: Bundle) -> Mapping[int, float]:
        return self._known.get(one.digest, {})

    def put(self, one: Bundle, batch_s: Mapping[int, float]) -> None:
        self._known[one.digest] = batch_s


class FakeServer:
    """A control plane with workers, a folder and the shared number."""

    def __init__(self, workers: int = 2, **policies: ModelPolicy) -> None:
        self.now = 100.0
        self.number = 0
        self.files: dict[str, Bundle] = {}
        self.unknown: frozenset[str] = frozenset()
        #: What the files of labels say, by the name of the model.
        self.labels: dict[str, VersionLabels] = {}
        self.policies = policies
        self.scans_asked = 0
        self.workers: dict[Hashable, FakeWorker] = {}
        #: Bytes that all processes may still use.
        self.available = 2**40
        #: Size of each file.
        self.file_bytes = 100
        memory = MemoryCheck(lambda: self.available, kept_bytes=0)
        self.plane = ControlPlane(
            self.policy, self._send, self._write, FakeTimes(), self._read_soon, memory
        )
        for key in range(1, workers + 1):
            self.start(key)

    def policy(self, name: str) -> ModelPolicy:
        return self.policies.get(name, ModelPolicy())

    def _send(self, key: Hashable, message: ToMember) -> None:
        self.workers[key].inbox.append(message)

    def _write(self, number: int) -> None:
        assert number > self.number
        self.number = number

    def _read_soon(self) -> None:
        self.scans_asked += 1

    def start(self, key: Hashable) -> FakeWorker:
        self.workers[key] = FakeWorker(self, key)
        self.plane.on_join(key, self.now)
        return self.workers[key]

    def kill(self, key: Hashable, how: str = "ended", *, explained: bool = False) -> list[Bundle]:
        del self.workers[key]
        return self.plane.on_end(key, how, explained=explained, now=self.now)

    def put(self, *bundles: str, content: str = "") -> None:
        for text in bundles:
            self.files[text] = bundle(text, content)

    def scan(self) -> None:
        """Scan until all digests that are needed are known."""
        asked = -1
        while asked != self.scans_asked:
            asked = self.scans_asked
            self.plane.on_scan(self._scan(), self.now)

    def _scan(self) -> Scan:
        files: dict[str, dict[int, Path]] = {}
        digests = {}
        wanted = self.plane.interest.unread
        for text, one in self.files.items():
            path = FOLDER / text
            files.setdefault(one.name, {})[one.version] = path
            known = self.plane.wishes.scan and path in self.plane.wishes.scan.digests
            if path in wanted or known:
                digests[path] = one.digest
        sizes = dict.fromkeys(digests, self.file_bytes)
        return Scan(files, digests, sizes, self.unknown, labels=dict(self.labels))

    def settle(self) -> None:
        """Let all workers do all that they can; loading always works."""
        while busy := [one for one in self.workers.values() if one.inbox or one.loading]:
            for worker in busy:
                while worker.inbox:
                    worker.read()
                if worker.loading:
                    worker.finish()

    def read_all(self) -> None:
        """Let all workers read all messages, and finish no loading."""
        while busy := [one for one in self.workers.values() if one.inbox]:
            for worker in busy:
                worker.read()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.plane.advance(self.now)

    def served(self) -> list[str]:
        """What the table has, by name, then newest first."""
        return [str(one) for model in self.plane.table.models for one in model.versions]
