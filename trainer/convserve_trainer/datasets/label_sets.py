"""Several labels a picture: as text in a table, and as rows of 0 and 1."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_imaging.folder_names import class_name
from convserve_trainer.datasets.pictures import Labels
from convserve_trainer.errors import DataError

Chosen: TypeAlias = npt.NDArray[np.bool_]
"""Bool [N], whether each picture is."""

SEPARATOR = "|"  # no spreadsheet writes it between cells, so that no cell with it needs quotes


def read(cell: str, where: str) -> tuple[str, ...]:
    """Returns the labels in a cell of a table, sorted; nothing for an empty one.

    Args:
        cell: "beach|sea", blanks around labels do not count.
        where: it is, for messages.

    Raises:
        DataError: a label is empty, not printable, or there twice.
    """
    if not cell.strip():
        return ()
    return checked(cell.split(SEPARATOR), where)


def checked(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the labels of a picture as they are compared, sorted.

    Args:
        names: of them.
        where: they are, for messages.

    Raises:
        DataError: one is empty, not printable, or there twice.
    """
    found = sorted(class_name(name.strip()) for name in names)
    for name in found:
        if not name or not name.isprintable():
            raise DataError(f"{where}: expected labels of printable text, got {name!r}")
    if len(set(found)) < len(found):
        raise DataError(f"{where}: expected each label once, got {SEPARATOR.join(found)}")
    return tuple(found)


def matrix(sets: Sequence[Sequence[int]], count: int) -> Labels:
    """Returns uint8 [N, K], 1 for each label that a picture has.

    Args:
        sets: the numbers of each picture's labels.
        count: of labels, K.
    """
    rows = np.zeros((len(sets), count), np.uint8)
    for row, numbers in zip(rows, sets, strict=True):
        row[list(numbers)] = 1
    return rows


def spread(rows: npt.NDArray[np.integer], share: float, generator: np.random.Generator) -> Chosen:
    """Returns which pictures are of a part that has every label in about the same share.

    The rarest label is dealt out first: each of its pictures goes to where its labels are wanted
    most.

    Args:
        rows: [N, K] of 0 and 1.
        share: of the part, above 0 and below 1; it has one picture at least.
        generator: breaks ties.

    Raises:
        DataError: there is one picture only.

    Source: K. Sechidis, G. Tsoumakas and I. Vlahavas, "On the stratification of multi-label data",
        ECML PKDD 2011: iterative stratification, into two parts.
    """
    count = len(rows)
    if count < 2:
        raise DataError(f"expected two pictures or more to keep some of them, got {count}")
    has = rows.astype(bool)
    of_part = np.array([1 - share, share])
    wanted = of_part[:, None] * has.sum(axis=0)  # pictures of each label that a part still lacks
    spare = of_part * count  # and pictures of any sort
    left = np.ones(count, bool)
    chosen = np.zeros(count, bool)
    order = generator.permutation(count)

    def deal(number: int, label: int | None) -> None:
        lacking = spare if label is None else wanted[:, label]
        # Of equals the larger part, so that one rare picture is trained on.
        part = max((0, 1), key=lambda each: (lacking[each], spare[each], -each))
        chosen[number], left[number] = bool(part), False
        spare[part] -= 1
        wanted[part] -= has[number]

    while (remaining := has[left].sum(axis=0)).any():
        label = int(np.where(remaining > 0, remaining, count + 1).argmin())
        for number in order[left[order] & has[order, label]]:
            deal(int(number), label)
    for number in order[left[order]]:
        deal(int(number), None)
    if not chosen.any():
        chosen[order[-1]] = True
    return chosen
