"""What a tracker is: a class with four methods, of which each does nothing unless it is overridden.

They are called one after another, on a thread of the tracker's own. One that raises is not called
again, and a training never waits for one that hangs, but for some seconds at its end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = Mapping[str, float]
"""Of an epoch, by the columns of history.csv: epoch, loss, accuracy, ...; what is not known of it,
such as val_loss without validation, is left out."""


@dataclass(frozen=True)
class StartedRun:
    """A training that begins, or goes on.

    Attributes:
        name: of the model.
        recipe: all its settings, as in a manifest: numbers, texts, lists and tables.
        dataset_sha256: digest of the data.
        folder: of the run, where a tracker may keep files of its own; it may go with the run.
        resumed: whether it goes on from a checkpoint.
        earlier: figures of the epochs before that.
    """

    name: str
    recipe: Mapping[str, Any]
    dataset_sha256: str
    folder: Path
    resumed: bool = False
    earlier: Sequence[Figures] = ()


@dataclass(frozen=True)
class EndedRun:
    """A training that has ended well.

    Attributes:
        published: path of the model.onnx, or the URL of its version on object storage; None for a
            further seed, whose net is not published.
        content: of model.onnx, with its manifest.
        files: others of the bundle, by name.
    """

    published: str | None
    content: bytes
    files: Mapping[str, bytes]


class Tracker:
    """Does nothing; made anew, without arguments, for each seed of a training."""

    def start(self, run: StartedRun) -> None:
        """A training begins, or goes on."""

    def epoch(self, figures: Figures) -> None:
        """An epoch has ended, after those of `StartedRun.earlier`."""

    def end(self, run: EndedRun) -> None:
        """The training has ended, and its net is published."""

    def fail(self, problem: str, *, stopped: bool) -> None:
        """The training has ended without a net.

        Args:
            problem: the error, in one line.
            stopped: whether the user has stopped it, so that it may go on later.
        """
