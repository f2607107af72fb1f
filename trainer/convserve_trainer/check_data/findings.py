"""What is found in a picture set: kinds, how grave each is, and what `--fix` does about it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How grave a finding is."""

    ERROR = "error"  # spoils the training, or the figure that says how good it is
    WARNING = "warning"  # to be looked at
    NOTE = "note"  # to be known


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding.

    Attributes:
        name: stable, for JSON, and the name of the folder that `--fix` moves files into.
        severity: of every finding of the kind.
        title: what its items are and why it matters; one line.
    """

    name: str
    severity: Severity
    title: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing found.

    Attributes:
        path: of a file or folder, relative to the set's folder.
        detail: what is the matter with it; may be empty.
        reason: kind of fault of a broken file; empty for other findings.
        others: paths of further files that belong to it.
        moves: paths of the files that `--fix` moves for it.
    """

    path: str
    detail: str = ""
    reason: str = ""
    others: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """All things of a kind.

    Attributes:
        kind: what they are.
        items: never empty.
    """

    kind: Kind
    items: tuple[Item, ...]


_ERRORS = {
    "no-pictures": "there is nothing to train on",
    "missing-split": "a split has no folder",
    "too-few-classes": "a classifier tells two classes apart, or more",
    "class-in-one-split": "a class must be in train and in validation",
    "empty-class": "a class without a usable picture cannot be learnt or scored",
    "broken": "broken pictures: training and serving refuse them",
    "two-labels": "the same picture with different labels: at least one is wrong",
    "in-both-splits": "the same picture in train and validation: the score would be too good",
}
_WARNINGS = {
    "copies": "the same picture more than once in a class: it weighs more than the others",
    "alike-two-labels": "pictures of different labels that look alike: look at them",
    "alike-in-both-splits": "pictures of train and validation that look alike: look at them",
    "unbalanced": "classes of unequal size: the larger is favoured",
    "tiny": "tiny pictures: enlarged, they are a blur",
    "elongated": "long or tall pictures: made square, they are distorted",
    "uniform": "pictures that show next to nothing",
    "other-suffix": "JPEGs that are not used because of their suffix",
    "outside": "pictures that are not used because they are in no class's folder",
    "deeper": "folders within a class's folder: nothing in them is used",
}
_NOTES = {
    "turned": "pictures with an Exif orientation: turned upright when they are read",
    "grey": "grey pictures: used as colour pictures without colour",
    "cmyk": "CMYK pictures: used, in about the right colours",
    "enlarged": "pictures smaller than the training size: enlarged",
    "not-read": "folders beside train and validation: not read",
}
KINDS = {
    name: Kind(name, severity, title)
    for severity, titles in (
        (Severity.ERROR, _ERRORS),
        (Severity.WARNING, _WARNINGS),
        (Severity.NOTE, _NOTES),
    )
    for name, title in titles.items()
}
"""By name, the gravest first."""
