"""The plot of a training: loss and accuracy, epoch by epoch."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convserve_trainer.host import user_cache
from convserve_trainer.runs.history import Epoch, History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_IN = (10.0, 4.2)
PNG_DPI = 120


@dataclass(frozen=True)
class Colours:
    """Of what is drawn.

    Attributes:
        training: of the dots.
        validation: of the line.
        best: of the mark on the epoch whose weights are published.
    """

    training: str = "#1f77b4"
    validation: str = "#d95f02"
    best: str = "#555555"


def plot(history: History, title: str) -> dict[str, bytes]:
    """Returns the plot, once as PNG and once as SVG, by the ending of a file's name.

    Two panels, loss and accuracy: dots on a thin line for training, a line for validation, and a
    mark on the epoch whose weights are published. The same history gives the same bytes.

    Args:
        history: one epoch or more.
        title: of the whole.

    Source: Chollet, "Deep Learning with Python", the figures of the chapter on convnets.
    """
    user_cache.settle_libraries()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Figure without pyplot: nothing global, and no window is looked for.
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    panels(losses, accuracies, history, Colours())
    figure.suptitle(title)
    drawn = {}
    with mpl.rc_context({"svg.hashsalt": "convserve"}):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=PNG_DPI, metadata=metadata)
            drawn[kind] = content.getvalue()
    return drawn


def panels(losses: "Axes", accuracies: "Axes", history: History, colours: Colours) -> None:
    """Draws the two panels.

    Args:
        losses: the one for the loss.
        accuracies: the one for the accuracy.
        history: one epoch or more.
        colours: of what is drawn.
    """
    epochs = history.epochs
    training, validated = [e.loss for e in epochs], [e.val_loss for e in epochs]
    _panel(losses, history, "loss (nats)", training, validated, colours)
    training, validated = [e.accuracy for e in epochs], [e.val_accuracy for e in epochs]
    name = "accuracy (share that is right)"
    _panel(accuracies, history, name, training, validated, colours)


def _panel(
    axes: "Axes",
    history: History,
    name: str,
    training: Sequence[float],
    validation: Sequence[float | None],
    colours: Colours,
) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers = [epoch.epoch for epoch in history.epochs]
    colour = colours.training
    axes.plot(numbers, training, "o-", color=colour, ms=4, lw=1, label="training")
    pairs = zip(numbers, validation, strict=True)
    validated = [(number, value) for number, value in pairs if value is not None]
    if validated:
        style = "-" if len(validated) > 1 else "x"  # a line of one point cannot be seen
        points = zip(*validated, strict=True)
        axes.plot(*points, style, color=colours.validation, label="validation")
        _mark(axes, history.best, dict(validated)[history.best.epoch], colours.best)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.08)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _mark(axes: "Axes", best: Epoch, value: float, colour: str) -> None:
    axes.axvline(best.epoch, color=colour, linestyle=":", linewidth=1)
    label = f"epoch {best.epoch}, published: {value:.3f}"
    # Hollow, so that it hides nothing.
    axes.plot([best.epoch], [value], "D", color=colour, mfc="none", markersize=9, label=label)
