"""Small pictures that a net is wrong about, in rows of one mistake each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.pictures import Pixels
from convserve_trainer.evaluation.mistakes import EACH
from convserve_trainer.html import figures
from convserve_trainer.html.figures import Ink
from convserve_trainer.html.section import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ROW_IN = 1.05  # of a row of thumbnails


@dataclass(frozen=True)
class Row:
    """Pictures of one mistake.

    Attributes:
        title: above them.
        pixels: uint8 [N, H, W, C], N at most EACH.
        confidences: float [N], 0 to 1, below them.
    """

    title: str
    pixels: Pixels
    confidences: npt.NDArray[np.float32]


def thumbnails(rows: Sequence[Row], caption: str) -> Figure:
    """Returns the figure "mistakes".

    Args:
        rows: one or more.
        caption: below all.
    """

    def paint(drawing: "Drawing", ink: Ink) -> None:
        parts = drawing.subfigures(len(rows), 1, squeeze=False)[:, 0]
        for part, each in zip(parts, rows, strict=True):
            part.suptitle(each.title, x=0.01, ha="left", fontsize=figures.SMALL, color=ink.text)
            axes = part.subplots(1, EACH, squeeze=False)[0]
            for number, one in enumerate(axes):
                if number < len(each.pixels):
                    sure = f"{each.confidences[number]:.0%}"
                    figures.picture(one, each.pixels[number])
                    one.set_xlabel(sure, fontsize=figures.SMALL, color=ink.text)
                else:
                    figures.bare(one)

    return figures.draw(
        "mistakes",
        ROW_IN * len(rows) + 0.5 * len(rows),
        paint,
        alt="; ".join(each.title for each in rows),
        caption=caption,
        photographic=True,
        page_only=True,
    )
