"""Lists the bundles of a folder, and the entries that are not bundles, with the reason.

The layout is NAME/VERSION/model.onnx. An entry that is unreadable, or has another form, hides no
other one.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from convserve_bundle.contract import (
    LABELS_FILE,
    MODEL_FILE,
    NAME_RULE,
    VERSION_RULE,
    is_name,
    is_version,
)
from convserve_bundle.errors import BundleError, MissingBundleError

#: Triton's policy of a model, in the model's folder.
#: Source: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
TRITON_FILE = "config.pbtxt"


@dataclass
class Listing:
    """What is in a models folder."""

    #: Model files by name and version.
    bundles: dict[str, dict[int, Path]] = field(default_factory=dict)
    #: Entries that are not served, as "NAME" or "NAME/VERSION" ("" for the folder), and why.
    problems: dict[str, str] = field(default_factory=dict)
    #: Those of the problems that cannot be read at present: nothing is known about them.
    unreadable: set[str] = field(default_factory=set)
    #: Files beside models that another server would read, as "NAME/config.pbtxt".
    ignored: set[str] = field(default_factory=set)
    #: Files of the labels of models' versions, by name; see labels_file.
    labels: dict[str, Path] = field(default_factory=dict)

    def knows(self, name: str, version: int) -> bool:
        """Returns whether a version is known to exist or not: unreadable entries may hide it."""
        return not {name, f"{name}/{version}"} & self.unreadable


def list_bundles(folder: Path) -> Listing:
    """Returns what is in a models folder.

    Hidden entries and single files are ignored: publishers and file systems leave them there.

    Raises:
        OSError: if the folder itself cannot be read.
    """
    listing = Listing()
    for model in sorted(folder.iterdir()):
        if model.name.startswith("."):
            continue
        try:
            _list_model(folder, model, listing)
        except OSError as error:
            _unreadable(listing, model.name, error)
    return listing


def list_versions(folder: Path) -> list[int]:
    """Returns the versions in a model's folder, lowest first; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if is_version(entry.name))


def find_bundle(path: Path) -> Path:
    """Returns the path of a bundle's model.onnx.

    Args:
        path: of the file, of its version folder, or of the model's folder (the newest version).

    Raises:
        MissingBundleError: the path does not exist.
        BundleError: the path holds no bundle.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise MissingBundleError(f"{path}: no such file or folder")
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    newest = max(list_versions(path), default=None)
    if newest is None or not (path / str(newest) / MODEL_FILE).is_file():
        raise BundleError(_no_bundle(path))
    return path / str(newest) / MODEL_FILE


def not_versions(folder: Path) -> list[str]:
    """Returns the names of folders with a bundle that are not valid versions: "001", "v2"."""
    return [name for name in _holding(folder, MODEL_FILE) if not is_version(name)]


def _no_bundle(path: Path) -> str:
    nothing = f"{path}: holds neither {MODEL_FILE} nor a version folder with one"
    if others := not_versions(path):
        return f"{nothing}; not used: {', '.join(others)}: {VERSION_RULE}"
    models = [name for name in _holding(path, f"[0-9]*/{MODEL_FILE}") if list_versions(path / name)]
    if models:
        return f"{nothing}; it is the folder of the models {', '.join(models)}: name one of them"
    return nothing


def _holding(folder: Path, pattern: str) -> list[str]:
    """Returns the names in a folder, except hidden ones, within which a pattern matches."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")
    return [name for name in names if next((folder / name).glob(pattern), None)]


def _list_model(folder: Path, model: Path, listing: Listing) -> None:
    if not _is_folder(model):
        return
    named = is_name(model.name)
    if is_version(model.name) and _exists(model / MODEL_FILE):
        listing.problems[""] = (
            f"{folder} is the folder of one model: expected the folder above it, which holds "
            "NAME/VERSION/model.onnx"
        )
        return
    for version in sorted(model.iterdir()):
        if version.name.startswith("."):
            continue
        entry = f"{model.name}/{version.name}"
        if version.name == TRITON_FILE:
            listing.ignored.add(entry)
        if version.name == LABELS_FILE:
            listing.labels[model.name] = version
        try:
            if not _is_folder(version):
                continue
            file = version / MODEL_FILE
            if not _exists(file):
                continue
            if not named:
                listing.problems[model.name] = f"{NAME_RULE}, got {model.name!r}"
            elif not is_version(version.name):
                listing.problems[entry] = f"{VERSION_RULE}, got {version.name!r}"
            elif not file.is_file():
                listing.problems[entry] = (
                    f"{MODEL_FILE}: expected a file, got another kind of entry"
                )
            else:
                listing.bundles.setdefault(model.name, {})[int(version.name)] = file
        except OSError as error:
            _unreadable(listing, entry, error)


def _unreadable(listing: Listing, entry: str, error: OSError) -> None:
    listing.unreadable.add(entry)
    listing.problems[entry] = f"cannot be read as user {os.getuid()}: {error.strerror or error}"


def _is_folder(path: Path) -> bool:
    """Returns whether a path is a folder; raises where that is unknown, unlike Path.is_dir."""
    try:
        return (path.stat().st_mode & 0o170000) == 0o040000
    except (FileNotFoundError, NotADirectoryError):
        return False


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
