"""Publishing: a bundle appears whole, under a version that did not exist, or not at all.

It is written into a hidden folder beside its target, flushed to the disk and renamed. A rename
onto a folder that is not empty fails, so two publishers get a version each. What killed publishers
have left in the folder is removed.
"""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from convserve_bundle import digests_file, signing
from convserve_bundle.contract import DIGESTS_FILE, MODEL_FILE, VERSION_RULE, is_version
from convserve_bundle.errors import PublishError
from convserve_bundle.folder import list_versions
from convserve_host import atomic_file, leftovers, os_errors

_TARGET_EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def check_target(
    models: Path, name: str, version: int | None, signer: signing.Signer | None = None
) -> None:
    """Checks, before the work is done, that a bundle could be published.

    Raises:
        SigningError: its key cannot be used.
        PublishError: the models folder cannot be written to, or is the folder of one model; or the
            version exists or is not valid.
    """
    if signer is not None:
        signing.check(signer)
    folder = models / name
    if any((models / str(number) / MODEL_FILE).is_file() for number in list_versions(models)):
        raise PublishError(
            f"the models folder {models}: expected the folder of all models, got that of one, with "
            f"versions in it; its parent may be meant, {models.parent}"
        )
    if version is not None and not is_version(str(version)):
        raise PublishError(f"{folder}: {VERSION_RULE}, got {version}")
    if version is not None and (folder / str(version)).exists():
        raise PublishError(_exists(folder, version))
    try:
        models.mkdir(parents=True, exist_ok=True)
        for target in (models, folder) if folder.exists() else (models,):
            with tempfile.TemporaryFile(dir=target, prefix="."):
                pass
    except OSError as error:
        raise PublishError(
            f"the models folder {models} cannot be written to: {os_errors.reason(error)}"
        ) from error


def publish(
    model: bytes,
    models: Path,
    name: str,
    version: int | None = None,
    signer: signing.Signer | None = None,
    extra_files: Mapping[str, bytes] = MappingProxyType({}),
    numbered_files: Mapping[str, Callable[[int], bytes]] = MappingProxyType({}),
) -> Path:
    """Publishes a bundle, with a file of the digests of all others.

    Args:
        model: the content of model.onnx.
        models: the models folder.
        name: of the model.
        version: its number; None for the one after the highest that exists.
        signer: who signs it; None for nobody.
        extra_files: content of other files in the version's folder, by name; servers ignore them.
        numbered_files: likewise, functions that make the content from the version.

    Returns:
        The path of the published model.onnx.

    Raises:
        PublishError: the version exists, or the file system refuses; nothing was published.
        SigningError: its key cannot be used; likewise.
    """
    folder = models / name
    temporary = folder / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        leftovers.remove(folder)
        try:
            temporary.mkdir()
            with leftovers.held(temporary):
                contents = {**extra_files, MODEL_FILE: model}
                made = temporary / "made"
                made.mkdir()
                _write(contents, made)
                target = _rename(made, folder, version, signer, contents, numbered_files)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise PublishError(
            f"nothing was published: {error.filename or folder}: {os_errors.reason(error)}"
        ) from error
    try:
        atomic_file.flush(folder)
        atomic_file.flush(models)
    except OSError as error:
        raise PublishError(
            f"{target} is published, but a power cut may lose it: {error.strerror}"
        ) from error
    return target / MODEL_FILE


def _write(contents: Mapping[str, bytes], folder: Path) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    atomic_file.flush(folder)


def _rename(
    made: Path,
    folder: Path,
    version: int | None,
    signer: signing.Signer | None,
    contents: Mapping[str, bytes],
    numbered_files: Mapping[str, Callable[[int], bytes]],
) -> Path:
    while True:
        number = version if version is not None else max(list_versions(folder), default=0) + 1
        if not is_version(str(number)):
            raise PublishError(f"{folder}: {VERSION_RULE}, got {number}")
        target = folder / str(number)
        # A signature states the name.
        made = made.rename(made.with_name(target.name))
        try:
            if target.exists():  # a rename would replace an empty folder
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            numbered = {name: make(number) for name, make in numbered_files.items()}
            digests = digests_file.statement_of({**contents, **numbered}, str(number))
            _write({**numbered, DIGESTS_FILE: digests}, made)
            if signer is not None:
                # Before it appears: those who want signed versions alone would refuse it.
                signing.write(signing.sign(made, signer), made)
            os.rename(made, target)
            return target
        except OSError as error:
            if error.errno not in _TARGET_EXISTS:
                raise
            if version is not None:
                raise PublishError(_exists(folder, version)) from error


def _exists(folder: Path, version: int) -> str:
    return f"{folder / str(version)} exists; a published version is never overwritten"
