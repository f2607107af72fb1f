"""The file of digests beside a published bundle: the SHA-256 of every file of its version's folder.

It is the statement of OpenSSF Model Signing without a signature: what a signature of the folder
signs, so that signing changes nothing in it.

Source: https://github.com/ossf/model-signing-spec (v1.0) and, for the statement around it,
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md.
"""

import hashlib
import json
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from convserve_bundle.contract import DIGESTS_FILE, MODEL_FILE, SIGNATURE_FILE
from convserve_bundle.errors import BundleError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
#: They cannot hold their own digest.
NOT_COVERED = (DIGESTS_FILE, SIGNATURE_FILE)

#: Most bytes of a file of digests, or of a signature: a bundle has a handful of files.
MOST_BYTES = 2**22
#: Most entries of a folder that is compared with its digests.
MOST_ENTRIES = 10_000
#: Most names that a message repeats, and most characters of each.
_MOST_NAMED, _MOST_SHOWN = 3, 80

_DIGEST = re.compile(r"[0-9a-f]{64}")
#: One folder, of which no name can lead elsewhere.
_LOCATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Statement:
    """What a version's folder should hold.

    Attributes:
        files: SHA-256, hexadecimal, by path within the folder.
        ignored: paths, of files or folders, that may hold anything.
        links: whether files may be symbolic links.
        location: on object storage the folder beside this file that holds them, by its name;
            empty: they lie beside it.
    """

    files: Mapping[str, str]
    ignored: frozenset[str] = frozenset(NOT_COVERED)
    links: bool = False
    location: str = ""

    def ignores(self, name: str) -> bool:
        """Returns whether a path within the folder may hold anything."""
        path = PurePosixPath(name)
        return any(path.is_relative_to(one) for one in (*NOT_COVERED, *self.ignored))


def make_statement(name: str, files: Mapping[str, str], location: str = "") -> bytes:
    """Returns the content of a file of digests.

    Args:
        name: Of the folder.
        files: SHA-256, hexadecimal, by path within the folder.
        location: See Statement.
    """
    ordered = sorted(files, key=PurePosixPath)
    digest = {"sha256": _root(files[one] for one in ordered)}
    statement = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": digest}
            # in-toto's field for where the subject can be had.
            | ({"downloadLocation": location} if location else {})
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(NOT_COVERED),
            },
            "resources": [
                {"name": one, "algorithm": "sha256", "digest": files[one]} for one in ordered
            ],
        },
    }
    return json.dumps(statement, indent=2).encode() + b"\n"


def statement_of(contents: Mapping[str, bytes], name: str, location: str = "") -> bytes:
    """Returns the content of the file of digests of a folder that is about to be written.

    Args:
        contents: Of its files, by path.
        name: Of the folder.
        location: See Statement.
    """
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    return make_statement(name, digests, location)


def read_statement(content: bytes) -> Statement:
    """Returns what a file of digests says.

    Raises:
        BundleError: It is not one, contradicts itself, or leaves out the model file.
    """
    try:
        statement = json.loads(content)
        _expect("_type", STATEMENT, statement["_type"])
        _expect("predicateType", PREDICATE, statement["predicateType"])
        (subject,) = statement["subject"]
        root = subject["digest"]["sha256"]
        location = subject.get("downloadLocation", "")
        serialization = statement["predicate"]["serialization"]
        resources = [
            (one["name"], one["algorithm"], one["digest"])
            for one in statement["predicate"]["resources"]
        ]
    except BundleError:
        raise
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(
            f"{DIGESTS_FILE}: expected a statement of digests, got something else: "
            f"{type(error).__name__}: {error}"
        ) from error
    stated = checked(serialization, resources)
    found = _root(stated.files[name] for name in sorted(stated.files, key=PurePosixPath))
    _expect("subject.digest", root, found)
    if location != "" and not (isinstance(location, str) and _LOCATION.fullmatch(location)):
        raise BundleError(
            f"{DIGESTS_FILE}: downloadLocation: expected the name of a folder, got {location!r}"
        )
    return replace(stated, location=location)


def checked(serialization: Any, resources: Iterable[tuple[Any, Any, Any]]) -> Statement:
    """Returns a statement of parsed JSON.

    Args:
        serialization: How the digests were made.
        resources: Name, algorithm and digest of each file.

    Raises:
        BundleError: It is of another kind, or leaves out the model file.
    """
    if not isinstance(serialization, dict):
        raise BundleError(f"{DIGESTS_FILE}: expected how its digests were made, got none")
    _expect("serialization.method", "files", serialization.get("method"))
    _expect("serialization.hash_type", "sha256", serialization.get("hash_type"))
    files: dict[str, str] = {}
    for name, algorithm, digest in resources:
        if not isinstance(name, str) or not _is_inside(name) or name in files:
            raise BundleError(
                f"{DIGESTS_FILE}: expected paths within the folder, each once, got {name!r}"
            )
        _expect(f"algorithm of {name}", "sha256", algorithm)
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise BundleError(f"{DIGESTS_FILE}: expected a SHA-256 of {name}, got {digest!r}")
        files[name] = digest
    if MODEL_FILE not in files:
        raise BundleError(f"{DIGESTS_FILE}: expected {MODEL_FILE} among its files, got none")
    ignored = serialization.get("ignore_paths", [])
    if not isinstance(ignored, list) or not all(isinstance(one, str) for one in ignored):
        raise BundleError(f"{DIGESTS_FILE}: expected ignore_paths as a list, got {ignored!r}")
    return Statement(files, frozenset(ignored), serialization.get("allow_symlinks") is True)


def entries(folder: Path) -> Iterator[Path]:
    """Yields what is in a folder and the folders in it, up to one entry more than MOST_ENTRIES.

    It follows no links to folders.

    Raises:
        OSError: A folder cannot be read.
    """
    folders, left = [folder], MOST_ENTRIES + 1
    while folders:
        for path in folders.pop().iterdir():
            if not left:
                return
            left -= 1
            yield path
            if path.is_dir() and not path.is_symlink():
                folders.append(path)


def list_files(folder: Path, stated: Statement) -> dict[str, Path]:
    """Returns the files of a folder that a statement should cover, by path within the folder.

    Raises:
        BundleError: There is something other than files and folders, or too much.
        OSError: The folder cannot be read.
    """
    files: dict[str, Path] = {}
    for number, path in enumerate(entries(folder)):
        name = path.relative_to(folder).as_posix()
        if number == MOST_ENTRIES:
            raise BundleError(f"{folder}: expected at most {MOST_ENTRIES} entries, got more")
        if stated.ignores(name):
            continue
        mode = path.stat().st_mode if stated.links else path.lstat().st_mode
        if stat.S_ISREG(mode):
            files[name] = path
        elif not stat.S_ISDIR(mode):
            raise BundleError(f"{_shown(name)}: expected a file, got another kind of entry")
    return files


def compare(stated: Statement, found: Mapping[str, str], where: str) -> None:
    """Refuses a folder that does not hold what is stated.

    Args:
        stated: Of the folder.
        found: SHA-256, hexadecimal, of its files by path within it; see list_files.
        where: The name of the file that states it, for messages.

    Raises:
        BundleError: A file is another one, there are more, or fewer.
    """
    for problem, names in (
        ("is missing", stated.files.keys() - found.keys()),
        ("is not covered", found.keys() - stated.files.keys()),
        ("was changed", {one for one in found if stated.files.get(one, found[one]) != found[one]}),
    ):
        if names:
            shown = ", ".join(_shown(one) for one in sorted(names)[:_MOST_NAMED])
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            raise BundleError(
                f"{where}: expected the files that it covers, as they were: {shown}{more} {problem}"
            )


def read_small(path: Path) -> bytes:
    """Returns the content of a file of digests or of a signature.

    Raises:
        BundleError: It is too large, or another kind of entry.
        OSError: It cannot be read.
    """
    if not path.is_file():  # Nobody may write into a pipe.
        raise BundleError(f"{path.name}: expected a file, got another kind of entry")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise BundleError(f"{path.name}: expected at most {MOST_BYTES} bytes, got more")
    return content


def _root(digests: Iterable[str]) -> str:
    """Returns the digest of digests, in the order of their files."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _is_inside(name: str) -> bool:
    """Returns whether a name is a path within a folder in its only form."""
    path = PurePosixPath(name)
    inside = name not in ("", ".") and not path.is_absolute() and ".." not in path.parts
    return inside and "\0" not in name and path.as_posix() == name


def _expect(what: str, expected: object, got: object) -> None:
    if got != expected:
        raise BundleError(f"{DIGESTS_FILE}: {what}: expected {expected}, got {got!r}")


def _shown(name: str) -> str:
    """Returns a name for a message; one that is not printable as it is in Python."""
    shown = name if name.isprintable() else ascii(name)
    return f"{shown[:_MOST_SHOWN]}…" if len(shown) > _MOST_SHOWN else shown
