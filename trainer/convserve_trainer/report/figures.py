"""The figures of a report: the history of its training, and what is taken for what."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.pages import figures
from convserve_trainer.pages.figures import Ink
from convserve_trainer.pages.section import Figure
from convserve_trainer.report import plot
from convserve_trainer.runs.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COUNTED = 12  # classes; numbers of more cannot be read


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
        f"Loss and accuracy over {len(epochs.epochs)} epochs; in the last, loss {last.loss:.4f} "
        f"and accuracy {last.accuracy:.4f} in training"
    )
    if best.val_loss is not None:
        alt += (
            f"; the lowest validation loss, {best.val_loss:.4f} at an accuracy of "
            f"{best.val_accuracy:.4f}, after epoch {best.epoch}"
        )
    caption = "Loss and accuracy, epoch by epoch; dots for training, each picture as it was met"
    return figures.draw("history", 6.4, paint, alt=alt, caption=caption)


def confusion(counts: npt.NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Returns the confusion matrix.

    Args:
        counts: int [K, K], held-out pictures; rows are what they are, columns what the net says.
        names: of the K classes.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def paint(drawing: "Drawing", ink: Ink) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = drawing.subplots()
        colours = LinearSegmentedColormap.from_list("shares", [ink.paper, ink.first])
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
        axes.set_xlabel("what the net says")
        axes.set_ylabel("what it is")
        if len(names) > COUNTED:
            return
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = ink.paper if shares[row, column] > 0.5 else ink.text
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour)

    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    row, column = divmod(int(wrong.argmax()), len(names))
    most = (
        f"most often, {wrong[row, column]:,} times, {names[row]} is taken for {names[column]}"
        if wrong.any()
        else "no picture is taken for another class"
    )
    alt = f"Confusion matrix of {len(names)} classes: {most}"
    caption = (
        "What is taken for what: held-out pictures, each row a class as it is, each column as the "
        "net says; the darker or brighter, the larger a share of the row"
    )
    return figures.draw("confusion", 5.6, paint, alt=alt, caption=caption)
