"""Connected pieces of a mask, found without a loop over pixels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """Pieces of a mask [H, W] whose pixels touch at a side or a corner, all arrays int64 [N].

    Attributes:
        area: pixels of each.
        top, left: first row and column.
        bottom, right: the row and column after the last.
        run_row, run_start, run_stop: rows of the pieces' runs, and the columns that each covers.
        run_piece: which piece each run belongs to.
    """

    area: Integers
    top: Integers
    left: Integers
    bottom: Integers
    right: Integers
    run_row: Integers
    run_start: Integers
    run_stop: Integers
    run_piece: Integers

    def sums(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Returns what the pixels of each piece add up to, of [H, W]: float64 [N]."""
        total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        line = self.run_row * values.shape[1]
        runs = total[line + self.run_stop] - total[line + self.run_start]
        return np.bincount(self.run_piece, runs, len(self.area)).astype(np.float64)

    def mask(self, wanted: Mask, shape: tuple[int, ...]) -> Mask:
        """Returns bool [H, W], true on the pieces for which `wanted` [N] is true."""
        rows, width = shape
        kept = wanted[self.run_piece]
        # +1 where a run begins and -1 behind its end; one column more, for runs at the right edge.
        steps = np.zeros(rows * (width + 1), np.int8)
        line = self.run_row[kept] * (width + 1)
        steps[line + self.run_start[kept]] = 1
        steps[line + self.run_stop[kept]] = -1
        filled: Mask = np.cumsum(steps, dtype=np.int8).reshape(rows, width + 1)[:, :width] > 0
        return filled


def pieces_of(mask: Mask) -> Pieces:
    """Returns the connected pieces of a mask, bool [H, W], in the order of their first pixels.

    Rows are cut into runs; runs of neighbouring rows that touch are joined by the least number of
    either (Shiloach and Vishkin's hooking and pointer jumping, a few passes over all runs).
    """
    height, width = mask.shape
    steps = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    row, start = np.nonzero(steps == 1)
    stop = np.nonzero(steps == -1)[1]
    # Keys that grow from row to row: two columns between rows keep those from touching.
    line = row * (width + 2)
    above = line - (width + 2)
    first = np.searchsorted(line + stop, above + start)  # the first run that ends at it or later
    last = np.searchsorted(line + start, above + stop, side="right")
    touching = np.maximum(last - first, 0)
    lower = np.repeat(np.arange(len(row)), touching)
    offset = np.arange(len(lower)) - np.repeat(np.cumsum(touching) - touching, touching)
    upper = np.repeat(first, touching) + offset
    label = _joined(len(row), lower, upper)
    _, piece = np.unique(label, return_inverse=True)
    count = int(piece.max()) + 1 if len(piece) else 0
    top, left = np.full(count, height), np.full(count, width)
    bottom, right = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.minimum.at(top, piece, row)
    np.minimum.at(left, piece, start)
    np.maximum.at(bottom, piece, row + 1)
    np.maximum.at(right, piece, stop)
    area = np.bincount(piece, stop - start, count).astype(np.int64)
    return Pieces(area, top, left, bottom, right, row, start, stop, piece)


def _joined(count: int, one: Integers, other: Integers) -> Integers:
    """Returns for each node of a graph the least node that it is connected with."""
    label = np.arange(count)
    while True:
        least = np.minimum(label[one], label[other])
        before = label.copy()
        np.minimum.at(label, before[one], least)
        np.minimum.at(label, before[other], least)
        while True:
            jumped = label[label]
            if np.array_equal(jumped, label):
                break
            label = jumped
        if np.array_equal(label, before):
            return label
