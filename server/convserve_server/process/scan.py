"""Looks at the models folder again and again, on a thread of its own: a volume may hang."""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from convserve_bundle.errors import SigningError
from convserve_bundle.labels_file import VersionLabels
from convserve_bundle.signing import Trust, check_installed
from convserve_server.core.digests import Content, Digests
from convserve_server.core.models_folder import ModelsFolder
from convserve_server.process.labels_files import LabelsFiles
from convserve_server.security.file_watch import FileWatch
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """What was in the models folder.

    Attributes:
        files: Of versions, by name and version.
        digests: Of versions by their model files, of those that were to be read; see Content.
        sizes: Of the same versions, bytes.
        unknown: Entries that cannot be read at present, as "NAME" or "NAME/VERSION".
        refused: Those of the versions that must not be served, and why; see Content.
        labels: Of versions, by the name of the model, where it has a file of labels.
    """

    files: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    digests: Mapping[Path, str] = field(default_factory=dict)
    sizes: Mapping[Path, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    refused: Mapping[Path, str] = field(default_factory=dict)
    labels: Mapping[str, VersionLabels] = field(default_factory=dict)

    def knows(self, name: str, version: int) -> bool:
        """Returns whether a version is known to exist or not."""
        return not {name, f"{name}/{version}"} & self.unknown


@dataclass(frozen=True)
class Interest:
    """What a scan should look at.

    Attributes:
        served: Names of the models that are served.
        unread: Files of which the digest is needed.
    """

    served: frozenset[str] = frozenset()
    unread: frozenset[Path] = frozenset()


class Scanner:
    """Scans a models folder.

    Args:
        path: Of the folder.
        interest: Returns what to look at; called on the thread that scans.
        report: Called with the scan, None if the folder cannot be read, on that thread.
        trust: Whose signature each version must have; None: none needs one.
    """

    def __init__(
        self,
        path: Path,
        interest: Callable[[], Interest],
        report: Callable[[Scan | None], None],
        trust: Trust | None = None,
    ) -> None:
        self._folder = ModelsFolder(path, _log_problem)
        self._interest = interest
        self._report = report
        self._digests = Digests(trust.statement if trust else None)
        self._trust = trust
        self._trusted = None if trust is None else FileWatch([trust.path], self._read_trust)
        self._labels = LabelsFiles()
        # Files of which the digest was needed once; they are looked at for changes.
        self._wanted: set[Path] = set()
        # Files that cannot be read, and why, as was reported; and those that are refused.
        self._unread: dict[Path, str] = {}
        self._refused: dict[Path, str] = {}
        self._ignored: set[str] = set()
        self._looked = False
        self._news = threading.Event()
        self._stop = threading.Event()
        #: How often the thread scans, s.
        self.interval_s = 0.0
        self._thread: threading.Thread | None = None

    def start(self, interval_s: float) -> None:
        """Scans in a thread from now on. Polling also works on network volumes, unlike inotify."""
        self.interval_s = interval_s
        self._thread = threading.Thread(target=self._loop, name="models folder", daemon=True)
        self._thread.start()

    def scan_now(self) -> None:
        """Lets the thread scan at once."""
        self._news.set()

    def close(self, timeout_s: float) -> None:
        """Stops the thread; waits for it at most so long."""
        self._stop.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    @property
    def most_bytes(self) -> int:
        """Most bytes of a version's files; larger ones are refused unread."""
        return self._digests.most_bytes

    @most_bytes.setter
    def most_bytes(self, most: int) -> None:
        self._digests.most_bytes = most
        self._digests.forget()

    def scan(self) -> None:
        """Scans once, and reports."""
        if self._trusted is not None:
            self._trusted.look()
        interest = self._interest()
        listing = self._folder.look(interest.served)
        if listing is None:
            self._report(None)
            return
        if self._folder.is_empty and not self._looked:
            log.info("no models in %s yet; waiting for the first", self._folder.path)
        self._looked = True
        self._name_ignored(listing.ignored)
        unknown = set(listing.unreadable)
        files = {path for versions in listing.bundles.values() for path in versions.values()}
        self._wanted = (self._wanted | interest.unread) & files
        digests, sizes, refused = {}, {}, {}
        for path in sorted(self._wanted):
            read = self._read(path)
            if read is None:
                unknown.add(f"{path.parent.parent.name}/{path.parent.name}")
            else:
                digests[path], sizes[path] = read.digest, read.size
                if read.problem:
                    refused[path] = read.problem
        self._digests.keep(files)
        self._name_refused(refused)
        labels = self._labels.read(listing.labels, listing.bundles)
        self._report(Scan(listing.bundles, digests, sizes, frozenset(unknown), refused, labels))

    def _name_ignored(self, entries: Collection[str]) -> None:
        """Logs, once, which files of other servers change nothing here."""
        for entry in sorted({*entries} - self._ignored):
            log.warning(
                "%s is Triton's and is ignored: what holds for a model is in a table [models.NAME] "
                "of the file of settings",
                entry,
            )
        self._ignored = {*entries}

    def _name_refused(self, refused: dict[Path, str]) -> None:
        """Logs, once, which versions are not what their digests or signatures say."""
        for path, problem in refused.items():
            if self._refused.get(path) != problem:
                folder = path.parent
                log.error("%s/%s is refused: %s", folder.parent.name, folder.name, problem)
        self._refused = refused

    def _read_trust(self) -> None:
        """Reads again whose signatures count.

        Raises:
            ValueError, OSError: The file cannot be used.
        """
        assert self._trust is not None
        try:
            self._trust.read()
        except SigningError as error:
            raise ValueError(str(error)) from error
        self._digests.forget()

    def _read(self, path: Path) -> Content | None:
        """Returns what a version holds; None, and logs why once, if it cannot be read."""
        try:
            content = self._digests.read(path)
        except OSError as error:
            problem = f"{path} cannot be read: {error.strerror or error}"
            if self._unread.get(path) != problem:
                log.error("%s", problem)
            self._unread[path] = problem
            return None
        self._unread.pop(path, None)
        return content

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            try:
                self.scan()
            except Exception:
                # The next scan may do better; the models that are loaded still serve.
                log.exception("scanning %s failed", self._folder.path)
            self._news.wait(self.interval_s)


def trust_of(settings: Settings) -> Trust | None:
    """Returns whose signature each version must have; None if none needs one.

    Raises:
        SettingError: The file of keys cannot be used.
        SigningError: What checks signatures is not installed.
    """
    if not settings.security.require_signature:
        return None
    check_installed()
    try:
        return Trust(Path(settings.security.require_signature))
    except (SigningError, OSError) as error:
        raise SettingError(f"require_signature: {error}") from error


def _log_problem(entry: str, problem: str) -> None:
    """Logs what is wrong with an entry of the models folder; "" is the folder."""
    if problem:
        log.error("%s%s", f"{entry}: " if entry else "", problem)
