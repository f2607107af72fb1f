"""Whether the folder of a version holds what its file of digests, or its signature, says."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from convserve_bundle import digests_file, external_data
from convserve_bundle.contract import DIGESTS_FILE, SIGNATURE_FILE
from convserve_bundle.digests_file import Statement
from convserve_bundle.errors import BundleError

#: Returns what a signature says of a folder; raises BundleError if it does not count.
Verify = Callable[[bytes], Statement]


def verify_bundle(path: Path, verify: Verify | None = None) -> dict[str, int]:
    """Refuses a version that is not what these files state.

    Args:
        path: Of its model file.
        verify: Checks the signature that it must have; None: it needs none.

    Returns:
        How many files each of DIGESTS_FILE and SIGNATURE_FILE covers, of those that were compared.

    Raises:
        BundleError: It is not, has no signature where it needs one, or is not an ONNX file.
        OSError: A file cannot be read.
    """
    external = {one: external_data.file_of(path, one) for one in external_data.locations(path)}
    return verify_folder(path, external, hash_of, verify)


def verify_folder(
    path: Path,
    external: Mapping[str, Path | None],
    hash_of: Callable[[Path], str],
    verify: Verify | None,
) -> dict[str, int]:
    """Refuses a version that is not what these files state; see verify_bundle.

    Args:
        path: Of its model file.
        external: Its files of external data, by their locations; None for those that are not there.
        hash_of: Returns the SHA-256 of a file, hexadecimal.
        verify: Checks the signature that it must have; None: it needs none.
    """
    folder = path.parent
    stated: dict[str, Statement] = {}
    if (folder / DIGESTS_FILE).exists():
        content = digests_file.read_small(folder / DIGESTS_FILE)
        stated[DIGESTS_FILE] = digests_file.read_statement(content)
    if verify is not None:
        if not (folder / SIGNATURE_FILE).exists():
            raise BundleError(f"{SIGNATURE_FILE}: expected a signature, got none")
        stated[SIGNATURE_FILE] = verify(digests_file.read_small(folder / SIGNATURE_FILE))
    for name, statement in stated.items():
        files = digests_file.list_files(folder, statement)
        digests_file.compare(statement, {one: hash_of(file) for one, file in files.items()}, name)
        for location, file in external.items():
            if file and file.relative_to(folder).as_posix() not in statement.files:
                raise BundleError(f"{name}: expected {location} among its files, got none")
    return {name: len(statement.files) for name, statement in stated.items()}


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
