"""The parts of a data set, by the names that data sets in use have for them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)

#: By lower-case name. Source: Hugging Face's datasets, "Structure your repository", split names.
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
_BETWEEN = re.compile(r"[-._ 0-9/]+")


def named(name: str) -> str | None:
    """Returns the part that a name is one of, one of PARTS: "validation" for "val"."""
    return _NAMES.get(name.lower())


def in_path(path: str) -> str | None:
    """Returns the part that a word of a relative path names: "train" for data/train-00000.x.

    The word that comes first decides, folders before the file's name.
    """
    words = _BETWEEN.split(path)
    return next((part for part in map(named, words) if part), None)


def folders(folder: Path) -> Mapping[str, Path]:
    """Returns the folders of parts in a folder, in the order of PARTS.

    Of two for the same part the one that is named after it counts.
    """
    found: dict[str, Path] = {}
    for name in sorted(os.listdir(folder)):
        part = named(name)
        if part and (name == part or part not in found) and (folder / name).is_dir():
            found[part] = folder / name
    return {part: found[part] for part in PARTS if part in found}
