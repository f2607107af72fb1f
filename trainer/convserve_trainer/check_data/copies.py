"""The same picture in several places: the same file, or files that look the same."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from convserve_trainer.check_data import look_alikes
from convserve_trainer.check_data.findings import Item
from convserve_trainer.check_data.survey import Survey
from convserve_trainer.check_data.tree import Place
from convserve_trainer.data.photo_folders import VALIDATION

SAME_FILE = "the same file"
SAME_LOOK = "the same picture in another file"

_SAME = {
    look_alikes.WITHIN_CLASS: "copies",
    look_alikes.ACROSS_SPLITS: "in-both-splits",
    look_alikes.ACROSS_CLASSES: "two-labels",
}
_ALIKE = {
    look_alikes.ACROSS_SPLITS: "alike-in-both-splits",
    look_alikes.ACROSS_CLASSES: "alike-two-labels",
}


def find(survey: Survey) -> Iterable[tuple[str, Item]]:
    """Returns names of kinds of findings, each with something found."""
    groups: dict[bytes, list[Place]] = defaultdict(list)
    for place, picture in survey.pictures.items():
        groups[picture.sha256].append(place)
    for group in groups.values():
        if len(group) > 1:
            yield _same_file(survey.tree.folder, group)
    yield from _look_alikes(survey, list(groups.values()))


def _same_file(folder: Path, group: Sequence[Place]) -> tuple[str, Item]:
    relation = _relation(group)
    if relation == look_alikes.ACROSS_CLASSES:  # nobody but the user knows which label is right
        moves = list(group)
    else:
        kept = _to_keep(folder, group)
        moves = [place for place in group if place != kept]
    first, *others = _paths(group)
    return _SAME[relation], Item(first, SAME_FILE, others=tuple(others), moves=tuple(_paths(moves)))


def _look_alikes(survey: Survey, groups: Sequence[Sequence[Place]]) -> Iterable[tuple[str, Item]]:
    # Of the same file within a class, one stands for all.
    shown: dict[tuple[int, str, str], Place] = {}
    for number, group in enumerate(groups):
        for place in group:
            shown.setdefault((number, place.split, place.label), place)
    if not shown:
        return
    places = list(shown.values())
    contents, splits, labels = zip(*shown, strict=True)
    pairs = look_alikes.find(
        np.stack([survey.pictures[place].thumbnail for place in places]),
        contents,
        _numbers(splits),
        _numbers(labels),
    )
    for pair in pairs:
        ends = sorted((places[pair.first], places[pair.second]), key=lambda place: place.path)
        item = Item(ends[0].path, others=(ends[1].path,))
        if not pair.same:
            yield _ALIKE[pair.relation], replace(item, detail=f"alike to {pair.correlation:.0%}")
            continue
        copies = [*groups[contents[pair.first]], *groups[contents[pair.second]]]
        moves: list[Place] = []
        if pair.relation == look_alikes.ACROSS_CLASSES:
            moves = copies
        elif pair.relation == look_alikes.ACROSS_SPLITS:
            moves = [place for place in copies if place.split != VALIDATION]
        yield _SAME[pair.relation], replace(item, detail=SAME_LOOK, moves=tuple(_paths(moves)))


def _relation(group: Sequence[Place]) -> int:
    if len({place.label for place in group}) > 1:
        return look_alikes.ACROSS_CLASSES
    if len({place.split for place in group}) > 1:
        return look_alikes.ACROSS_SPLITS
    return look_alikes.WITHIN_CLASS


def _to_keep(folder: Path, group: Sequence[Place]) -> Place:
    """Returns the copy that stays: one in validation if there is any, whose size matters more.

    A link to another of the copies does not stay: it would lead nowhere once that one has gone.
    """
    paths = {place: folder / place.path for place in group}
    files = {os.path.realpath(path) for path in paths.values() if not path.is_symlink()}
    whole = [
        place
        for place, path in paths.items()
        if not path.is_symlink() or os.path.realpath(path) not in files
    ]
    return min(whole, key=lambda place: (place.split != VALIDATION, place.path))


def _paths(places: Iterable[Place]) -> list[str]:
    return sorted(place.path for place in places)


def _numbers(names: Sequence[str]) -> list[int]:
    known = {name: number for number, name in enumerate(sorted(set(names)))}
    return [known[name] for name in names]
