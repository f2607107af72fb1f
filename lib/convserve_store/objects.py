"""Single objects that are written by condition: created once, or replaced if nobody else has.

A store that ignores the condition would let two writers overwrite each other without a word, so it
is asked to prove itself first. What a probe needs stays in the store: one small object.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convserve_store.errors import ChangedError, StoreError
from convserve_store.location import Location

#: The object of probes, in the folder that is probed; hidden from servers by its dot.
PROBE = ".convserve-probe"
#: Answers to a condition that does not hold: of S3, and of those that give the status alone.
_NOT_MET = {"PreconditionFailed", "412"}
#: Two writers met: neither condition was decided.
_UNDECIDED = {"ConditionalRequestConflict", "OperationAborted", "409"}
_ATTEMPTS, _PAUSE_S = 5, 0.2
#: Largest object that is read whole here, bytes.
MOST_BYTES = 2**22


@dataclass(frozen=True)
class Stored:
    """A small object.

    Attributes:
        content: of it.
        tag: changes whenever it is replaced (S3's ETag); opaque.
    """

    content: bytes
    tag: str


def create(where: Location, content: bytes) -> bool:
    """Creates an object if there is none, atomically: of several writers one creates it.

    Args:
        where: of the object.
        content: of it; no other writer may have the same. Not empty.

    Returns:
        Whether it is ours; False: another one is there.

    Raises:
        StoreError: The store refuses or cannot be reached.
    """
    for attempt in range(_ATTEMPTS):
        with where.errors():
            try:
                with where.filesystem.open(where.path, "xb") as file:
                    file.write(content)
                return True
            except OSError as error:
                code = _code(error)
                if isinstance(error, FileExistsError) or code in _NOT_MET:
                    # Or the answer to our first request was lost, and the client asked again.
                    return _read(where) == content
                if code not in _UNDECIDED or attempt + 1 == _ATTEMPTS:
                    raise
        time.sleep(_PAUSE_S * (attempt + secrets.randbelow(100) / 100))
    raise AssertionError("the last attempt returns or raises")


def read(where: Location) -> Stored | None:
    """Returns a small object; None if there is none.

    Raises:
        StoreError: It is too large, or the store refuses or cannot be reached.
    """
    with where.errors():
        while True:
            try:
                before = where.filesystem.info(where.path)
                if before["size"] > MOST_BYTES:
                    raise StoreError(
                        f"{where}: expected at most {MOST_BYTES} bytes, got {before['size']}"
                    )
                content = _read(where)
                # It may have been replaced between the two.
                if tag_of(before) == tag_of(where.filesystem.info(where.path)):
                    return Stored(content, tag_of(before))
            except FileNotFoundError:
                return None


def replace(where: Location, content: bytes, before: str | None) -> None:
    """Replaces an object if it still is what was read.

    Args:
        where: of the object, on s3://.
        content: that it becomes; not empty.
        before: tag of what was read; None if there was none.

    Raises:
        ChangedError: Somebody else has changed, created or removed it.
        StoreError: The store refuses, cannot be reached, or cannot replace by condition.
    """
    if before is None:
        if not create(where, content):
            raise ChangedError(_changed(where))
        return
    if not _has_conditions(where):
        raise StoreError(
            f"{where.field}: expected s3://, whose objects are replaced by condition, got {where}"
        )
    with where.errors():
        try:
            where.filesystem.pipe_file(where.path, content, IfMatch=before)
        except OSError as error:
            if _code(error) not in _NOT_MET | _UNDECIDED | {"NoSuchKey", "404"}:
                raise
            found = read(where)
            # As in create().
            if found is None or found.content != content:
                raise ChangedError(_changed(where)) from error


def probe(folder: Location) -> None:
    """Refuses a store that creates an object although there is one.

    Args:
        folder: that objects will be created in.

    Raises:
        StoreError: It overwrites, refuses, or cannot be reached.
    """
    where = folder.child(PROBE)
    # If it is there already, one request shows it.
    if create(where, _probe_content()) and create(where, _probe_content()):
        raise StoreError(
            f"{folder.field}: expected a store that creates an object only if there is none "
            f"(If-None-Match), got one that overwrites: {folder}; two publishers could mix their "
            "files there"
        )


def probe_replace(folder: Location) -> None:
    """Refuses a store that replaces an object although it is not what was read.

    Args:
        folder: that objects will be replaced in.

    Raises:
        StoreError: It overwrites, refuses, or cannot be reached.
    """
    probe(folder)
    try:
        replace(folder.child(PROBE), _probe_content(), '"00000000000000000000000000000000"')
    except ChangedError:
        return
    raise StoreError(
        f"{folder.field}: expected a store that replaces an object only if it is what was read "
        f"(If-Match), got one that overwrites: {folder}; two operators could undo each other"
    )


def _probe_content() -> bytes:
    return (
        "Convserve has written this to see that the store never overwrites an object; it may be "
        f"removed. {secrets.token_hex(8)}\n"
    ).encode()


def _read(where: Location) -> bytes:
    content: bytes = where.filesystem.cat_file(where.path)
    return content


def _has_conditions(where: Location) -> bool:
    return where.url.startswith("s3://")


def tag_of(info: Mapping[str, Any]) -> str:
    """Returns what changes whenever an object does, of what a client says of it."""
    for name in ("ETag", "etag", "generation", "mtime", "created"):
        if name in info:
            return str(info[name])
    return ""


def _changed(where: Location) -> str:
    return f"{where}: expected it as it was read, got one that was changed meanwhile"


def _code(error: OSError) -> str:
    """Returns the store's own code of an error; empty if there is none."""
    response = getattr(error.__cause__, "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, dict) else ""
