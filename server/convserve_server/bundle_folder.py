"""Which bundles a models folder has, and which of its entries are none, and why.

The layout is NAME/VERSION/model.onnx. One entry that is unreadable, or has another form, hides no
other one.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

MODEL_FILE = "model.onnx"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")

_NAME_RULE = "expected as a model's name 1 to 64 of A-Z a-z 0-9 . _ -, beginning with A-Z a-z 0-9"
_VERSION_RULE = "expected as a version 1, 2, 3 and so on, at most 18 digits"


@dataclass
class Listing:
    """What is in a models folder."""

    #: Model files by name and version.
    bundles: dict[str, dict[int, Path]] = field(default_factory=dict)
    #: Entries that are not served, as "NAME" or "NAME/VERSION" ("" for the folder), and why.
    problems: dict[str, str] = field(default_factory=dict)
    #: Of these, those that cannot be read at present: nothing is known of them.
    unreadable: set[str] = field(default_factory=set)

    def knows(self, name: str, version: int) -> bool:
        """Whether it says anything of a version: if it is not there, it has been removed."""
        return not {name, f"{name}/{version}"} & self.unreadable


def list_bundles(folder: Path) -> Listing:
    """What is in a models folder.

    Hidden entries and single files are not looked at: publishers and file systems leave them there.

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


def _list_model(folder: Path, model: Path, listing: Listing) -> None:
    if not _is_folder(model):
        return
    named = bool(_NAME.fullmatch(model.name))
    if _VERSION.fullmatch(model.name) and _exists(model / MODEL_FILE):
        listing.problems[""] = (
            f"{folder} is the folder of one model: expected the folder above it, which holds "
            "NAME/VERSION/model.onnx"
        )
        return
    for version in sorted(model.iterdir()):
        if version.name.startswith("."):
            continue
        entry = f"{model.name}/{version.name}"
        try:
            if not _is_folder(version):
                continue
            file = version / MODEL_FILE
            if not _exists(file):
                continue
            if not named:
                listing.problems[model.name] = f"{_NAME_RULE}, got {model.name!r}"
            elif not _VERSION.fullmatch(version.name):
                listing.problems[entry] = f"{_VERSION_RULE}, got {version.name!r}"
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
    """Path.is_dir says no where it should say that it cannot know."""
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
