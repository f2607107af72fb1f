"""The figures of a report: the history of its training, and which class is mistaken for which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.figures import Ink
from convserve_trainer.html.section import Figure
from convserve_trainer.report import plot
from convserve_trainer.runs.history import History
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COUNTED = 12  # classes; numbers of more cannot be read
LIGHTEST, STRONGEST = 0.12, 0.65  # of the colour of mistakes: a single one, the commonest


def history(epochs: History) -> Figure:
    """Returns loss and accuracy, epoch by epoch.

    Args:
        epochs: one or more.
    """

    def paint(drawing: "Drawing", ink: Ink) -> None:
        losses, accuracies = drawing.subplots(2, 1)
        colours = plot.Colours(ink.first, ink.second, ink.faint)
        plot.panels(losses, accuracies, epochs, colours)

    last, best = epochs.epochs[-1], epochs.best
    alt = (
        f"Loss and accuracy over {counted(len(epochs.epochs), 'epoch')}; in the last, loss "
        f"{last.loss:.4f} and accuracy {last.accuracy:.4f} in training"
    )
    if best.val_loss is not None:
        alt += (
            f"; the lowest validation loss, {best.val_loss:.4f} at an accuracy of "
            f"{best.val_accuracy:.4f}, after epoch {best.epoch}"
        )
    caption = (
        "Loss and accuracy, epoch by epoch; dots on a line for training, each picture as it was met"
    )
    return figures.draw("history", 6.4, paint, alt=alt, caption=caption, page_only=True)


def confusion(counts: npt.NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Returns the confusion matrix.

    Args:
        counts: int [K, K], held-out pictures; rows are what they are, columns what the net says.
        names: of the K classes.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def paint(drawing: "Drawing", ink: Ink) -> None:
        axes = drawing.subplots()
        axes.imshow(_shades(shares, ink))
        axes.set_xlabel("what the net says")
        axes.set_ylabel("what it is")
        if len(names) > COUNTED:
            return
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                right = row == column and shares[row, column] > 0.5
                colour = ink.paper if right else ink.text
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour)

    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    row, column = divmod(int(wrong.argmax()), len(names))
    most = (
        f"most often, {wrong[row, column]:,} times, {names[row]} is mistaken for {names[column]}"
        if wrong.any()
        else "no picture is mistaken for another class"
    )
    alt = f"Confusion matrix of {len(names)} classes: {most}"
    caption = (
        "Which class is mistaken for which: held-out pictures, each row a class as it is, each "
        "column as the net says; right answers in one colour, mistakes in the other, each the "
        "stronger the larger a share of the row, mistakes on a scale of their own"
    )
    return figures.draw("confusion", 5.6, paint, alt=alt, caption=caption, page_only=True)


def _shades(shares: npt.NDArray[np.float64], ink: Ink) -> npt.NDArray[np.float64]:
    """Returns the colour of each cell, float64 [K, K, 3], 0 to 1.

    A few mistakes among a thousand would be white beside right answers, so that their strength
    follows the root of their share of the largest one's.
    """
    from matplotlib.colors import to_rgb

    paper, right, wrong = (np.array(to_rgb(name)) for name in (ink.paper, ink.first, ink.second))
    diagonal = np.eye(len(shares), dtype=bool)[..., np.newaxis]
    mistakes = np.where(diagonal[..., 0], 0, shares)
    strength = LIGHTEST * (mistakes > 0) + (STRONGEST - LIGHTEST) * np.sqrt(
        mistakes / max(mistakes.max(), 1e-12)
    )
    blended: npt.NDArray[np.float64] = np.where(
        diagonal,
        paper + shares[..., np.newaxis] * (right - paper),
        paper + strength[..., np.newaxis] * (wrong - paper),
    )
    return blended
