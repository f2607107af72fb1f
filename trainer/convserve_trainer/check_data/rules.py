"""The rules: what of a surveyed picture set is worth saying."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from convserve_trainer.check_data import copies
from convserve_trainer.check_data.findings import KINDS, Finding, Item
from convserve_trainer.check_data.survey import SIZE, UNREADABLE, Picture, Survey
from convserve_trainer.check_data.tree import WHOLE, Tree
from convserve_trainer.datasets.parts import TEST

MAX_RATIO = 1.5
"""Pictures of the largest class for one of the smallest. Always saying the larger class of such two
is right for 60 % of the pictures, so that accuracy begins to say less than it seems to."""

MIN_SIDE = 32
"""Pixels; a thumbnail or an icon. Five times enlarged it has no detail that a net could learn."""

MAX_ASPECT = 4.0
"""Long side by short side: panoramas and banners. Cameras and screens have 2.4 at most."""

MIN_SPREAD = 4.0
"""Standard deviation of the brightness, in levels of 255: a lens cap, a blank page."""


def findings(survey: Survey) -> list[Finding]:
    """Returns what is found, the gravest first; items in the order of their paths."""
    found: dict[str, list[Item]] = {name: [] for name in KINDS}
    for rule in (_folders, _broken, copies.find, _balance, _odd, _skipped):
        for name, item in rule(survey):
            # What a list names is not taken away from it: a row would lead nowhere.
            found[name].append(replace(item, moves=()) if survey.tree.listed else item)
    return [
        Finding(KINDS[name], tuple(sorted(items, key=lambda item: (item.reason, item.path))))
        for name, items in found.items()
        if items
    ]


def _folders(survey: Survey) -> Iterator[tuple[str, Item]]:
    tree = survey.tree
    labels = {label for names in tree.classes.values() for label in names}
    if not tree.files:
        suffixes = ", ".join(sorted(tree.choice.suffixes))
        yield "no-pictures", Item(".", f"no file of a class ends in {suffixes}")
    if len(labels) < 2:
        yield "too-few-classes", Item(".", f"class folders: {', '.join(labels) or 'none'}")
    for split in tree.missing:
        there = [entry.path for entry in tree.skipped if _is_beside(tree, entry.path)]
        beside = f"; there are: {', '.join(there)}" if there else ""
        yield "missing-split", Item(split, f"there is no such folder{beside}")
    files = Counter((file.split, file.label) for file in tree.files)
    usable = Counter((file.split, file.label) for file in survey.pictures)
    for split, names in tree.classes.items():
        prefix = "" if split == WHOLE else f"{split}/"
        for label in names:
            if not usable[split, label]:
                count = files[split, label]
                text = f"{count:,} files, all broken" if count else "no picture"
                yield "empty-class", Item(f"{prefix}{label}", text)
        if not tree.missing and split != TEST:
            missing = "no picture" if tree.listed else "there is no such folder"
            for label in sorted(labels.difference(names)):
                yield "class-in-one-split", Item(f"{prefix}{label}", missing)


def _broken(survey: Survey) -> Iterator[tuple[str, Item]]:
    for file, fault in survey.faults.items():
        # What cannot be read may be a good picture: a matter of permissions, or of the disk.
        moves = () if fault.reason == UNREADABLE else (file.path,)
        yield "broken", Item(file.path, fault.message, reason=fault.reason, moves=moves)


def _balance(survey: Survey) -> Iterator[tuple[str, Item]]:
    for split in survey.tree.classes:
        counts = Counter(file.label for file in survey.pictures if file.split == split)
        if len(counts) < 2:
            continue
        (most, large), *_, (least, small) = counts.most_common()
        if large > MAX_RATIO * small:
            text = f"{most} has {large:,} pictures, {least} {small:,}"
            yield "unbalanced", Item("." if split == WHOLE else split, text)


def _odd(survey: Survey) -> Iterator[tuple[str, Item]]:
    has_colour = any(picture.components > 1 for picture in survey.pictures.values())
    for file, picture in survey.pictures.items():
        for name, detail in _oddities(picture, has_colour):
            yield name, Item(file.path, detail)


def _oddities(picture: Picture, has_colour: bool) -> Iterator[tuple[str, str]]:
    sides = f"{picture.width} x {picture.height}"
    short, long = sorted((picture.width, picture.height))
    if short < MIN_SIDE:
        yield "tiny", sides
    elif short < SIZE:
        yield "enlarged", sides
    if long > MAX_ASPECT * short:
        yield "elongated", sides
    if picture.spread < MIN_SPREAD:
        yield "uniform", f"brightness varies by {picture.spread:.1f} of 255"
    if picture.orientation != 1:
        yield "turned", f"orientation {picture.orientation}"
    if picture.components == 1 and has_colour:
        yield "grey", ""
    if picture.components == 4:
        yield "cmyk", ""


def _skipped(survey: Survey) -> Iterator[tuple[str, Item]]:
    for entry in survey.tree.skipped:
        if entry.is_jpeg:
            yield "other-suffix", Item(entry.path, "a JPEG by its content")
        elif entry.kind == "outside":
            yield "outside", Item(entry.path)
        elif entry.kind == "folder":
            beside = _is_beside(survey.tree, entry.path)
            yield "not-read" if beside else "deeper", Item(entry.path)


def _is_beside(tree: Tree, path: str) -> bool:
    """Returns whether it is a folder beside train and validation."""
    return WHOLE not in tree.classes and "/" not in path
