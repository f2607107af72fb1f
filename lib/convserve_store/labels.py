"""Moves labels in the small file beside the versions of a model, NAME/labels.json.

    store = open_labels("s3://bucket/models", "models")
    store.move("mnist", "stable", 4)

Servers whose `rollout` is "label" follow that file; see convserve_bundle.labels_file. It is
replaced only as it was read: on object storage by condition, in a folder with a lock. So of two
operators none undoes what the other has done.
"""

import fcntl
import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from convserve_bundle.contract import LABELS_FILE, NAME_RULE, is_name
from convserve_bundle.errors import BundleError
from convserve_bundle.folder import Listing, list_bundles
from convserve_bundle.labels_file import MOST_BYTES, VersionLabels, read_labels, write_labels
from convserve_host import atomic_file, os_errors
from convserve_store import objects
from convserve_store.bundles import BundleStore
from convserve_store.errors import ChangedError, StoreError
from convserve_store.location import is_url, open_location
from convserve_store.objects import Stored

#: How often a move is tried while others move labels of the same model.
_ATTEMPTS = 10
#: Most versions or labels that a message lists.
_MOST_LISTED = 10
#: In the folder of a model, while a label there moves; hidden from servers by its dot.
_LOCK = ".labels.lock"


class _Files(Protocol):
    """What has the versions of models, and a file of labels for each; raises StoreError."""

    def versions(self) -> dict[str, list[int]]:
        """Returns the versions that exist, by the name of the model, lowest first."""

    def labelled(self) -> list[str]:
        """Returns the names of the models that have a file of labels."""

    def read(self, name: str) -> Stored | None:
        """Returns the file of labels of a model; None if there is none."""

    def replace(self, name: str, content: bytes, before: str | None) -> None:
        """Replaces it, if it still is what was read, by its tag; raises ChangedError if not."""

    def check(self) -> None:
        """Raises StoreError if it would replace a file that somebody else has changed."""


@dataclass(frozen=True)
class Move:
    """What a label names now, and named before.

    Attributes:
        version: that the label names now; None: it is removed.
        before: that it named before; None: it is new.
    """

    version: int | None
    before: int | None


class LabelStore:
    """The labels of the models in a folder or on object storage.

    Args:
        files: where they are.
        where: the same, for messages.
    """

    def __init__(self, files: _Files, where: str) -> None:
        self._files = files
        self._where = where

    def versions(self) -> dict[str, list[int]]:
        """Returns the versions that exist, by the name of the model, lowest first.

        Raises:
            StoreError: They cannot be read.
        """
        return self._files.versions()

    def names(self) -> list[str]:
        """Returns the names of the models that have labels, or had.

        Raises:
            StoreError: They cannot be read.
        """
        return sorted(self._files.labelled())

    def read(self, name: str) -> VersionLabels:
        """Returns the labels of a model; none where it has no file of them.

        Raises:
            StoreError: The file cannot be read, or is not one of labels.
        """
        return self._read(name)[0]

    def move(self, name: str, label: str, version: int | None) -> Move:
        """Moves a label to a version that exists, or removes it.

        Args:
            name: of the model.
            label: 1 to 64 of A-Z a-z 0-9 . _ -.
            version: that it names from now on; None: the label is removed.

        Raises:
            ChangedError: Somebody else has moved the same label meanwhile.
            StoreError: There is no such version, or the file cannot be read or written.
        """
        if not is_name(name):
            raise StoreError(f"model: {NAME_RULE}, got {name!r}")
        if version is not None:
            self.check_version(name, version)
        self._files.check()
        first: VersionLabels | None = None
        for _ in range(_ATTEMPTS):
            labels, tag = self._read(name)
            first = first or labels
            before = first.labels.get(label)
            if version is None and before is None:
                raise StoreError(
                    f"label: expected one of {name} in {self._where} ({_listed(labels.labels)}), "
                    f"got {label!r}"
                )
            if labels.labels.get(label) != before:
                raise ChangedError(
                    f"label {label} of {name}: expected {_shown(before)} as it was read, got "
                    f"{_shown(labels.labels.get(label))}: somebody else moves it, too"
                )
            try:
                moved = labels.moved(label, version)
                if moved != labels:
                    self._files.replace(name, write_labels(moved), tag)
            except ChangedError:
                continue
            except BundleError as error:
                raise StoreError(f"{self._where}/{name}: {error}") from error
            return Move(version, before)
        raise ChangedError(
            f"{self._where}/{name}/{LABELS_FILE}: expected it as it was read, got one that was "
            f"changed meanwhile, {_ATTEMPTS} times"
        )

    def check_version(self, name: str, version: int) -> None:
        """Checks whether a version exists.

        Raises:
            StoreError: It does not, or that cannot be read.
        """
        there = self.versions().get(name, [])
        if version not in there:
            raise StoreError(
                f"version: expected one of {name} in {self._where} ({_listed(there)}), got "
                f"{version}"
            )

    def _read(self, name: str) -> tuple[VersionLabels, str | None]:
        stored = self._files.read(name)
        if stored is None:
            return VersionLabels(), None
        try:
            return read_labels(stored.content), stored.tag
        except BundleError as error:
            raise StoreError(f"{self._where}/{name}: {error}") from error


def open_labels(where: str, field: str) -> LabelStore:
    """Returns the labels of the models in a folder or on object storage.

    Args:
        where: path of the models folder, or its URL, s3://BUCKET/FOLDER.
        field: what messages call it.

    Raises:
        StoreError: There is no such folder, or the URL or the store cannot be used.
    """
    if is_url(where):
        return LabelStore(_OnStore(BundleStore(open_location(where, field))), where.rstrip("/"))
    if not os.path.isdir(where):
        raise StoreError(
            f"{field}: expected a folder or a URL as s3://BUCKET/FOLDER, got {where!r}"
        )
    return LabelStore(_InFolder(Path(where)), where.rstrip("/"))


class _OnStore:
    def __init__(self, store: BundleStore) -> None:
        self._store = store

    def versions(self) -> dict[str, list[int]]:
        return {name: sorted(found) for name, found in self._store.look().versions.items()}

    def labelled(self) -> list[str]:
        parts = [key.split("/") for key in self._store.look().objects]
        return [key[0] for key in parts if len(key) == 2 and key[1] == LABELS_FILE]

    def read(self, name: str) -> Stored | None:
        return objects.read(self._store.where.child(name, LABELS_FILE))

    def replace(self, name: str, content: bytes, before: str | None) -> None:
        objects.replace(self._store.where.child(name, LABELS_FILE), content, before)

    def check(self) -> None:
        objects.probe_replace(self._store.where)


class _InFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def versions(self) -> dict[str, list[int]]:
        return {name: sorted(found) for name, found in self._listing().bundles.items()}

    def labelled(self) -> list[str]:
        return list(self._listing().labels)

    def read(self, name: str) -> Stored | None:
        return _stored(self._file(name))

    def replace(self, name: str, content: bytes, before: str | None) -> None:
        path = self._file(name)
        try:
            with (path.parent / _LOCK).open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                now = _stored(path)
                if (now and now.tag) != before:
                    raise ChangedError(f"{path}: expected it as it was read, got a changed one")
                with atomic_file.replaced(path) as temporary:
                    temporary.write_bytes(content)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {os_errors.reason(error)}") from error

    def check(self) -> None:
        """A lock is enough."""

    def _file(self, name: str) -> Path:
        return self._folder / name / LABELS_FILE

    def _listing(self) -> Listing:
        try:
            return list_bundles(self._folder)
        except OSError as error:
            raise StoreError(f"{self._folder} cannot be read: {os_errors.reason(error)}") from error


def _stored(path: Path) -> Stored | None:
    """Returns a small file; None if there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {os_errors.reason(error)}") from error
    return Stored(content, hashlib.sha256(content).hexdigest())


def _shown(version: int | None) -> str:
    return "none" if version is None else f"version {version}"


def _listed(there: Collection[object]) -> str:
    last = list(there)[-_MOST_LISTED:]
    return ", ".join(map(str, last)) or "none"
