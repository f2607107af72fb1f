"""Copies of the models on object storage that are served, in a folder on this machine.

The folder is then watched as any models folder is. A version appears in it whole, by a rename, once
its digests are right; what the store no longer has disappears. While the store is away nothing
changes.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from convserve_bundle.contract import DIGESTS_FILE, is_version
from convserve_bundle.errors import BundleError
from convserve_host import leftovers, os_errors
from convserve_server.process.label_copies import LabelCopies
from convserve_server.process.messages import InUse
from convserve_server.process.policies import policy_of
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings
from convserve_store.bundles import BundleStore, StoredVersion, StoreListing
from convserve_store.errors import AccessError, TooLargeError

#: In the folder: whose copies it has, and the lock of the server that uses it.
STATE, LOCK = ".convserve-mirror.json", ".convserve-mirror.lock"

log = logging.getLogger(__name__)


class Mirror:
    """Makes a folder have what should be served of a store.

    Args:
        folder: of the copies; held, see `held`.
        settings: With the policies of models.
        reopen: Returns the store; called again after each failure.
    """

    def __init__(self, folder: Path, settings: Settings, reopen: Callable[[], BundleStore]) -> None:
        self._folder = folder
        self._reopen = reopen
        self._store: BundleStore | None = None
        self._labels = LabelCopies(folder)
        #: Replaced as a whole, from other threads, as is the next.
        self.settings = settings
        self.in_use: InUse | None = None
        # Tags of the versions that are here, as far as they are known since the start.
        self._tags: dict[str, str] = {}
        # Versions that cannot be copied; those that could not the last time, and why: they are
        # larger than what max_cache_mib leaves, or may not be read; and what was logged of others.
        self._bad: set[StoredVersion] = set()
        self._skipped: dict[StoredVersion, Exception] = {}
        self._named: dict[str, str] = {}
        # Of max_cache_mib, bytes.
        self._left = 0

    def update(self) -> None:
        """Copies what is new, then removes what is no longer wanted.

        Raises:
            StoreError: The store refuses or cannot be reached; what is here stays.
            OSError: The disk is full, or another error of the file system.
        """
        try:
            store = self._store = self._store or self._reopen()
            listing = store.look()
            self._labels.update(store, listing)
            in_use = self.in_use
            wanted = self._fetch_wanted(store, listing, in_use or InUse())
        except Exception:
            self._store = None
            raise
        self._name_problems(listing)
        if in_use is None:  # What is served is not known yet.
            return
        for path in self._copies():
            name = f"{path.parent.name}/{path.name}"
            if name not in wanted:
                _remove(path)
                self._tags.pop(name, None)
                log.info("%s: the copy is removed", name)

    def _fetch_wanted(self, store: BundleStore, listing: StoreListing, in_use: InUse) -> set[str]:
        """Returns the versions that should be here, as "NAME/VERSION", and are."""
        self._bad = {one for one in self._bad if _has(listing, one)}
        before, self._skipped = self._skipped, {}
        most = self.settings.models.max_cache_mib * 2**20
        self._left = most - sum(map(_size, self._copies()))
        kept = {*in_use.served, *in_use.refused}
        wanted = {
            str(one)
            for versions in listing.versions.values()
            for one in versions.values()
            if str(one) in kept and self._path(one).exists()
        }
        for name, versions in listing.versions.items():
            chosen = self._choose(name, versions, in_use)
            # For one that cannot be copied an older one is, as a folder would have it.
            while not all([self._have(store, listing, one, before) for one in chosen]):
                chosen = self._choose(name, versions, in_use)
            wanted.update(map(str, chosen))
        denied = [one for one in self._skipped.values() if isinstance(one, AccessError)]
        if denied and not wanted:
            raise denied[0]
        return wanted

    def _choose(
        self, name: str, versions: dict[int, StoredVersion], in_use: InUse
    ) -> list[StoredVersion]:
        """Returns the versions of a model that should be served, newest first."""
        usable = {
            number: one
            for number, one in versions.items()
            if one not in self._bad and one not in self._skipped and str(one) not in in_use.refused
        }
        policy = policy_of(self.settings, name)
        if policy.control == "explicit":
            # An operator may ask for any.
            return sorted(usable.values(), key=lambda one: -one.version)
        labelled = self._labels.versions(name) if policy.rollout == "label" else ()
        return [usable[number] for number in policy.select(usable, labelled)]

    def _have(
        self,
        store: BundleStore,
        listing: StoreListing,
        version: StoredVersion,
        before: Collection[StoredVersion],
    ) -> bool:
        """Returns whether a version is here, after copying it if it was not; names one that fails.

        Args:
            store: that has it.
            listing: of the store.
            version: that should be here.
            before: those that were skipped the last time, and named.
        """
        name, path = str(version), self._path(version)
        if path.exists() and self._tags.get(name) == version.tag:
            return True
        try:
            if path.exists() and (path / DIGESTS_FILE).read_bytes() == store.read(version)[0]:
                self._tags[name] = version.tag
                return True
            self._copy(store, listing, version)
        except (TooLargeError, AccessError) as error:
            self._skipped[version] = error
            if version not in before:
                limit = f"max_cache_mib is {self.settings.models.max_cache_mib}: "
                why = limit if isinstance(error, TooLargeError) else ""
                log.error("%s is not copied: %s%s", name, why, error)
            return False
        except (BundleError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _OF_NAMES:
                raise
            self._bad.add(version)
            log.error("%s is not copied: %s", name, described(error))
            return False
        self._tags[name] = version.tag
        return True

    def _copy(self, store: BundleStore, listing: StoreListing, version: StoredVersion) -> None:
        path, began = self._path(version), time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
        try:
            size = store.fetch(version, temporary, max(self._left, 0), listing)
            if path.exists():
                # Somebody has published another one under its number, which the server refuses.
                _remove(path)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._left -= size
        log.info("%s: copied, %d bytes in %.1f s", version, size, time.monotonic() - began)

    def _name_problems(self, listing: StoreListing) -> None:
        """Logs, once, what looks like a version and is none."""
        for entry, problem in listing.problems.items():
            if self._named.get(entry) != problem:
                log.error("%s: %s", entry, problem)
        self._named = dict(listing.problems)

    def _copies(self) -> Iterator[Path]:
        for model in sorted(self._folder.iterdir()):
            if model.is_dir() and not model.name.startswith("."):
                yield from sorted(one for one in model.iterdir() if is_version(one.name))

    def _path(self, version: StoredVersion) -> Path:
        return self._folder / version.name / str(version.version)


@contextlib.contextmanager
def held(folder: Path, url: str) -> Iterator[bool]:
    """Keeps a folder for the copies of one server; what a killed one left unfinished is removed.

    Args:
        folder: of the copies; made if it is not there.
        url: of what is copied.

    Yields:
        Whether it has all that an earlier server had copied; see `note_complete`.

    Raises:
        SettingError: It has other files, copies of another store, or is another server's.
        OSError: It cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(
                f"models_cache: expected a folder of this server alone, got {folder}, which "
                "another one uses"
            ) from error
        yield _check_folder(folder, url)


def note_complete(folder: Path, url: str) -> None:
    """Notes that a folder has all that should be served, for a start while the store is away."""
    _write_state(folder, {"url": url, "complete": True})


def _check_folder(folder: Path, url: str) -> bool:
    try:
        state = json.loads((folder / STATE).read_bytes())
        before, complete = state["url"], state["complete"] is True
    except FileNotFoundError:
        others = sorted(one.name for one in folder.iterdir() if one.name != LOCK)
        if others:
            raise SettingError(
                f"models_cache: expected an empty folder, or one of an earlier start, got {folder} "
                f"with {others[0]}"
            ) from None
        _write_state(folder, {"url": url, "complete": False})
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise SettingError(
            f"models_cache: expected {STATE} as a server writes it, got another in {folder}"
        ) from error
    if before != url:
        raise SettingError(
            f"models_cache: expected a folder of copies of {url}, got {folder} with those of "
            f"{before}"
        )
    for model in folder.iterdir():
        if model.is_dir():
            for unfinished in model.glob(leftovers.PATTERN):
                shutil.rmtree(unfinished, ignore_errors=True)
    return complete


def _write_state(folder: Path, state: dict[str, object]) -> None:
    temporary = folder / f"{STATE}.tmp"
    temporary.write_text(json.dumps(state))
    os.replace(temporary, folder / STATE)


def _has(listing: StoreListing, version: StoredVersion) -> bool:
    return listing.versions.get(version.name, {}).get(version.version) == version


def _remove(path: Path) -> None:
    """Removes a version's folder; it disappears at once."""
    hidden = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def described(error: Exception) -> str:
    """Returns why an update failed, on one line."""
    if isinstance(error, OSError):
        return f"models_cache: {os_errors.described(error)}"
    return str(error)


#: Of OSError, those that the names of a version's files cause, and those that other settings cure.
_OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)
LASTING = (errno.EACCES, errno.EPERM, errno.EROFS)
