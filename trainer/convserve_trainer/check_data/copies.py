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
from convserve_trainer.check_data.tree import PictureFile
from convserve_trainer.datasets.parts import TEST, VALIDATION

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
    groups: dict[bytes, list[PictureFile]] = defaultdict(list)
    for file, picture in survey.pictures.items():
        groups[picture.sha256].append(file)
    for group in groups.values():
        if len(group) > 1:
            yield _same_file(survey.tree.folder, group)
    yield from _look_alikes(survey, list(groups.values()))


def _same_file(folder: Path, group: Sequence[PictureFile]) -> tuple[str, Item]:
    relation = _relation(group)
    if relation == look_alikes.ACROSS_CLASSES:  # nobody but the user knows which label is right
        moves = list(group)
    else:
        kept = _to_keep(folder, group)
        moves = [file for file in group if file != kept]
    first, *others = _paths(group)
    return _SAME[relation], Item(first, SAME_FILE, others=tuple(others), moves=tuple(_paths(moves)))


def _look_alikes(
    survey: Survey, groups: Sequence[Sequence[PictureFile]]
) -> Iterable[tuple[str, Item]]:
    # Of the same file within a class, one represents all.
    shown: dict[tuple[int, str, str], PictureFile] = {}
    for number, group in enumerate(groups):
        for file in group:
            shown.setdefault((number, file.split, file.label), file)
    if not shown:
        return
    files = list(shown.values())
    contents, splits, labels = zip(*shown, strict=True)
    pairs = look_alikes.find(
        np.stack([survey.pictures[file].thumbnail for file in files]),
        contents,
        _numbers(splits),
        _numbers(labels),
    )
    for pair in pairs:
        ends = sorted((files[pair.first], files[pair.second]), key=lambda file: file.path)
        item = Item(ends[0].path, others=(ends[1].path,))
        if not pair.same:
            yield _ALIKE[pair.relation], replace(item, detail=f"alike to {pair.correlation:.0%}")
            continue
        copies = [*groups[contents[pair.first]], *groups[contents[pair.second]]]
        moves: list[PictureFile] = []
        if pair.relation == look_alikes.ACROSS_CLASSES:
            moves = copies
        elif pair.relation == look_alikes.ACROSS_SPLITS:
            kept = max(map(_rank, copies))
            moves = [file for file in copies if _rank(file) < kept]
        yield _SAME[pair.relation], replace(item, detail=SAME_LOOK, moves=tuple(_paths(moves)))


def _relation(group: Sequence[PictureFile]) -> int:
    if len({file.label for file in group}) > 1:
        return look_alikes.ACROSS_CLASSES
    if len({file.split for file in group}) > 1:
        return look_alikes.ACROSS_SPLITS
    return look_alikes.WITHIN_CLASS


def _to_keep(folder: Path, group: Sequence[PictureFile]) -> PictureFile:
    """Returns the copy that stays: one that is not trained on if any, whose size matters more.

    A link to another of the copies does not stay: it would lead nowhere once that one has gone.
    """
    paths = {file: folder / file.path for file in group}
    files = {os.path.realpath(path) for path in paths.values() if not path.is_symlink()}
    whole = [
        file
        for file, path in paths.items()
        if not path.is_symlink() or os.path.realpath(path) not in files
    ]
    return min(whole, key=lambda file: (-_rank(file), file.path))


def _rank(file: PictureFile) -> int:
    """Returns how much a file is needed in its split."""
    return {TEST: 2, VALIDATION: 1}.get(file.split, 0)


def _paths(files: Iterable[PictureFile]) -> list[str]:
    return sorted(file.path for file in files)


def _numbers(names: Sequence[str]) -> list[int]:
    known = {name: number for number, name in enumerate(sorted(set(names)))}
    return [known[name] for name in names]
