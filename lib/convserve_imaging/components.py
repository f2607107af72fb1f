"""Connected pieces of a mask, found without a loop over pixels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Sums = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pieces:
    """Pieces of a mask [H, W] whose pixels touch at a side or a corner.

    Attributes:
        area: int64 [N], pixels of each.
        top, left: int64 [N], first row and column.
        bottom, right: int64 [N], the row and column after the last.
        pixels: int64 [P], where the mask is true, as indices of the flat mask, ascending.
        piece: int64 [P], which piece each of these pixels belongs to.
    """

    area: Integers
    top: Integers
    left: Integers
    bottom: Integers
    right: Integers
    pixels: Integers
    piece: Integers

    def sums(self, values: npt.NDArray[np.generic]) -> Sums:
        """Returns what each piece's pixels add up to: float64 [N] of numbers or truths [P]."""
        return np.bincount(self.piece, values, len(self.area)).astype(np.float64)

    def mask(self, wanted: Mask, shape: tuple[int, ...]) -> Mask:
        """Returns bool [H, W], true on the pieces for which `wanted` [N] is true."""
        drawn = np.zeros(shape[0] * shape[1], bool)
        drawn[self.pixels[wanted[self.piece]]] = True
        return drawn.reshape(shape)


def pieces_of(mask: Mask) -> Pieces:
    """Returns the connected pieces of a mask, bool [H, W], in the order of their first pixels.

    Rows are cut into runs; runs of neighbouring rows that touch are joined by the least number of
    either (Shiloach and Vishkin's hooking and pointer jumping, a few passes over all runs).
    """
    height, width = mask.shape
    pixels = np.flatnonzero(mask)
    rows = pixels // width
    # One column more, so that the end of a row does not touch the beginning of the next.
    positions = pixels + rows
    begins = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
    lengths = np.diff(begins, append=len(pixels))
    row = rows[begins]
    start = pixels[begins] - row * width
    stop = start + lengths
    # Keys that grow from row to row: two columns between rows keep runs of different rows apart.
    line = row * (width + 2)
    above = line - (width + 2)
    first = np.searchsorted(line + stop, above + start)  # the first run that ends at it or later
    last = np.searchsorted(line + start, above + stop, side="right")
    touching = np.maximum(last - first, 0)
    lower = np.repeat(np.arange(len(row)), touching)
    offset = np.arange(len(lower)) - np.repeat(np.cumsum(touching) - touching, touching)
    label = _joined(len(row), lower, np.repeat(first, touching) + offset)
    _, piece = np.unique(label, return_inverse=True)
    count = int(piece.max()) + 1 if len(piece) else 0
    top, left = np.full(count, height), np.full(count, width)
    bottom, right = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.minimum.at(top, piece, row)
    np.minimum.at(left, piece, start)
    np.maximum.at(bottom, piece, row + 1)
    np.maximum.at(right, piece, stop)
    of_pixels = np.repeat(piece, lengths)
    area = np.bincount(of_pixels, minlength=count)
    return Pieces(area, top, left, bottom, right, pixels, of_pixels)


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
