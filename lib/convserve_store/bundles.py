"""Model bundles on object storage.

    FOLDER/NAME/VERSION/digests.json             makes the version exist; written last, never again
    FOLDER/NAME/VERSION/20261130T120000Z-1f2e3d4c/model.onnx, ...   its files

A publisher writes its files into a folder that only this attempt has, and then creates the file of
digests, which names that folder. So of several publishers of a version one wins, and none can mix
its files with another's; nothing is renamed. What a publisher that was killed has left is in no
file of digests: nobody reads it, and later publishers remove it.
"""

import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from convserve_bundle import digests_file, signing
from convserve_bundle.contract import (
    DIGESTS_FILE,
    MODEL_FILE,
    SIGNATURE_FILE,
    VERSION_RULE,
    is_name,
    is_version,
)
from convserve_bundle.digests_file import Statement
from convserve_bundle.errors import BundleError, PublishError
from convserve_bundle.verification import hash_of
from convserve_store import objects
from convserve_store.errors import AccessError, StoreError, TooLargeError
from convserve_store.location import Location

#: Age from which what is in no file of digests is a leftover, s; and longest time that a publisher
#: may need, so that its files are never removed before it has created its file of digests.
OLD_S, LONGEST_S = 24 * 3600.0, 12 * 3600.0

_ATTEMPT = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{8}")
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class StoredVersion:
    """A version that exists.

    Attributes:
        name: of the model.
        version: of the model.
        tag: of its file of digests: another one is another version under the same number.
    """

    name: str
    version: int
    tag: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass
class StoreListing:
    """What is in a store.

    Attributes:
        versions: that exist, by name and version.
        objects: size, bytes, and tag of every object, by its path below the folder.
        problems: what looks like a version and is none, as "NAME/VERSION", and why.
    """

    versions: dict[str, dict[int, StoredVersion]] = field(default_factory=dict)
    objects: dict[str, tuple[int, str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class BundleStore:
    """The bundles of a folder on object storage. All methods raise StoreError.

    Args:
        where: of the folder of all models.
    """

    def __init__(self, where: Location) -> None:
        self.where = where

    def look(self) -> StoreListing:
        """Returns all that there is: a request for each 1,000 objects.

        Raises:
            StoreError: The store refuses or cannot be reached.
        """
        with self.where.errors():
            found = self.where.filesystem.find(self.where.path, detail=True)
        listing = StoreListing()
        for path, info in found.items():
            key = path.removeprefix(self.where.path).lstrip("/")
            listing.objects[key] = (info["size"], objects.tag_of(info))
        for key, (_, tag) in listing.objects.items():
            name, _, rest = key.partition("/")
            version, _, file = rest.partition("/")
            if not is_name(name) or not is_version(version):
                continue
            if file == DIGESTS_FILE:
                versions = listing.versions.setdefault(name, {})
                versions[int(version)] = StoredVersion(name, int(version), tag)
            elif file == MODEL_FILE and f"{name}/{version}/{DIGESTS_FILE}" not in listing.objects:
                listing.problems[f"{name}/{version}"] = (
                    f"expected a version that was published there, with {DIGESTS_FILE}, got "
                    f"{MODEL_FILE} alone; use convserve-train publish"
                )
        return listing

    def read(self, version: StoredVersion) -> tuple[bytes, Statement]:
        """Returns the file of digests of a version, and what it says.

        Raises:
            AccessError: It is gone, or may not be read.
            StoreError: The store refuses or cannot be reached.
            BundleError: It is not a file of digests.
        """
        stored = objects.read(self._file(version.name, version.version, DIGESTS_FILE))
        if stored is None:
            raise AccessError(f"{self.where}: expected version {version}, got none: it is gone")
        return stored.content, digests_file.read_statement(stored.content)

    def fetch(
        self,
        version: StoredVersion,
        folder: Path,
        most_bytes: int,
        listing: StoreListing | None = None,
    ) -> int:
        """Writes all files of a version into an empty folder, and checks them.

        Args:
            version: that exists.
            folder: of it, on this machine.
            most_bytes: of all files; a larger version is refused before anything is read.
            listing: if there is one already.

        Returns:
            Bytes of all files.

        Raises:
            AccessError: It is gone, or may not be read.
            StoreError: The store refuses or cannot be reached.
            TooLargeError: It has more bytes.
            BundleError: It is not what its digests say.
            OSError: The disk is full, or another error of the file system.
        """
        content, statement = self.read(version)
        known = (listing or self.look()).objects
        within = f"{version}/{statement.location}".rstrip("/")
        names = [*statement.files]
        if f"{within}/{SIGNATURE_FILE}" in known:
            names.append(SIGNATURE_FILE)
        missing = sorted(name for name in names if f"{within}/{name}" not in known)
        if missing:
            raise BundleError(f"{version}: expected the file {missing[0]} of its digests, got none")
        size = sum(known[f"{within}/{name}"][0] for name in names)
        if size > most_bytes:
            raise TooLargeError(f"{version}: expected at most {most_bytes} bytes, got {size}")
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            source = self.where.child(*within.split("/"), *name.split("/"))
            with source.errors():
                source.filesystem.get_file(source.path, str(path))
        found = {name: hash_of(folder / name) for name in statement.files}
        digests_file.compare(statement, found, DIGESTS_FILE)
        (folder / DIGESTS_FILE).write_bytes(content)
        return size

    def check_target(
        self, name: str, version: int | None, signer: signing.Signer | None = None
    ) -> None:
        """Checks, before the work is done, that a bundle could be published.

        Raises:
            SigningError: Its key cannot be used.
            PublishError: The version exists or is not valid, or the store cannot be used.
        """
        if signer is not None:
            signing.check(signer)
        if version is not None and not is_version(str(version)):
            raise PublishError(f"{self.where.child(name)}: {VERSION_RULE}, got {version}")
        try:
            objects.probe(self.where)
            versions = self.look().versions.get(name, {})
        except StoreError as error:
            raise PublishError(str(error)) from error
        if version in versions:
            raise PublishError(self._exists(name, version))

    def publish(
        self,
        model: bytes,
        name: str,
        version: int | None = None,
        signer: signing.Signer | None = None,
        extra_files: Mapping[str, bytes] = MappingProxyType({}),
        numbered_files: Mapping[str, Callable[[int], bytes]] = MappingProxyType({}),
    ) -> str:
        """Publishes a bundle, as convserve_bundle.publish does into a folder; see there.

        Returns:
            The URL of the published version.

        Raises:
            PublishError: The version exists, or the store cannot be used; nothing was published.
            SigningError: The signer's key cannot be used; likewise.
        """
        contents = {**extra_files, MODEL_FILE: model}
        try:
            objects.probe(self.where)
            self._remove_leftovers(name)
            while True:
                number = version if version is not None else self._next(name)
                numbered = {file: make(number) for file, make in numbered_files.items()}
                if self._publish({**contents, **numbered}, name, number, signer):
                    return str(self.where.child(name, str(number)))
                if version is not None:
                    raise PublishError(self._exists(name, version))
        except StoreError as error:
            raise PublishError(f"nothing was published: {error}") from error

    def _next(self, name: str) -> int:
        number = max(self.look().versions.get(name, ()), default=0) + 1
        if not is_version(str(number)):
            raise PublishError(f"{self.where.child(name)}: {VERSION_RULE}, got {number}")
        return number

    def _publish(
        self, contents: dict[str, bytes], name: str, number: int, signer: signing.Signer | None
    ) -> bool:
        """Returns whether it was published; False: the version exists."""
        began = time.monotonic()
        attempt = f"{datetime.now(UTC).strftime(_TIME)}-{secrets.token_hex(4)}"
        if signer is not None:
            contents = {**contents, SIGNATURE_FILE: _sign(contents, number, signer)}
        try:
            for file, content in contents.items():
                target = self._file(name, number, attempt, *file.split("/"))
                with target.errors():
                    target.filesystem.pipe_file(target.path, content)
        except BaseException:
            self._remove(name, number, attempt)
            raise
        if time.monotonic() - began > LONGEST_S:
            raise PublishError(
                f"{self.where}: expected to write all files within {LONGEST_S / 3600:g} hours, got "
                "a slower connection; nothing was published"
            )
        digests = digests_file.statement_of(
            {file: contents[file] for file in contents if file != SIGNATURE_FILE},
            str(number),
            attempt,
        )
        marker = self._file(name, number, DIGESTS_FILE)
        try:
            published = objects.create(marker, digests)
        except StoreError as error:
            # So its files are not removed.
            raise PublishError(
                f"it is not known whether {marker} was created, which publishes the version: "
                f"{error}"
            ) from error
        if not published:
            self._remove(name, number, attempt)
        return published

    def _remove_leftovers(self, name: str) -> None:
        """Removes what publishers of a model that were killed have left."""
        listing = self.look()
        attempts = set()
        for key in listing.objects:
            model, version, attempt, *_ = *key.split("/"), "", "", ""
            found = _ATTEMPT.fullmatch(attempt)
            if model != name or not is_version(version) or found is None:
                continue
            begun = datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
            if (datetime.now(UTC) - begun).total_seconds() > OLD_S:
                attempts.add((int(version), attempt))
        for number, attempt in attempts:
            stored = listing.versions.get(name, {}).get(number)
            try:
                named = stored and self.read(stored)[1].location
            except BundleError:
                continue  # Of a file that we do not know, nothing is removed.
            if named != attempt:
                self._remove(name, number, attempt)

    def _remove(self, name: str, number: int, attempt: str) -> None:
        """Removes the files of an attempt, of which nobody has read."""
        folder = self._file(name, number, attempt)
        try:
            with folder.errors():
                folder.filesystem.rm(folder.path, recursive=True)
        except StoreError:
            # Those who may not remove, or are without a network now, leave it to the next
            # publisher: it is in no file of digests.
            return

    def _file(self, name: str, version: int, *rest: str) -> Location:
        return self.where.child(name, str(version), *rest)

    def _exists(self, name: str, version: int) -> str:
        where = self.where.child(name, str(version))
        return f"{where} exists; a published version is never overwritten"


def _sign(contents: Mapping[str, bytes], number: int, signer: signing.Signer) -> bytes:
    """Returns the signature of files, which states the name of their folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / str(number)
        folder.mkdir()
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return signing.sign(folder, signer)
