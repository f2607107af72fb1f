"""The progress of a training: a table with a row for each epoch; a bar while it lasts, too.

The bar is drawn on terminals only, and says the time that is left of the epoch; the table says that
of the whole training.
"""

import statistics
import time
from collections.abc import Mapping
from typing import TextIO

from convserve_trainer.host import streams
from convserve_trainer.runs.history import Epoch

BAR = 14  # characters; the line fits a terminal of 80
REDRAW_S = 0.1


class Progress:
    """Draws one epoch after another.

    Args:
        stream: takes it.
        epochs: of the whole training.
        steps: of one epoch.
        validated: whether the epochs have figures of validation.
    """

    def __init__(self, stream: TextIO, epochs: int, steps: int, validated: bool) -> None:
        self._stream = stream
        self._epochs = epochs
        self.steps = steps
        validation = ("val_loss", "val_accuracy") if validated else ()
        self._columns = ("loss", "accuracy", *validation, "seconds", "input", "left")
        self._seconds: list[float] = []
        self._headed = False
        self._epoch = 0
        self._first: tuple[int, float] | None = None
        self._drawn = 0.0
        self._width = 0

    def start(self, epoch: int) -> None:
        """Begins an epoch, counted from 0."""
        self._epoch = epoch
        self._first = None
        self._drawn = 0.0
        if not self._headed:
            self._headed = True
            self._draw(self._row("epoch", *self._columns))
            self.abandon()

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """Shows that so many steps of the epoch are done; redraws ten times a second at most."""
        now = time.monotonic()
        if self._first is None:  # they may have compiled the net, and say nothing of the time left
            self._first = done, now
            return
        first, since = self._first
        if not streams.is_screen(self._stream) or now - self._drawn < REDRAW_S:
            return
        self._drawn = now
        filled = BAR * done // self.steps
        left = (now - since) / (done - first) * (self.steps - done)
        self._draw(
            f"epoch {self._epoch + 1}/{self._epochs}  [{'=' * filled:{BAR}}] {done}/{self.steps}  "
            f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}  {left:.0f} s left"
        )

    def kept(self, done: int, logs: Mapping[str, float]) -> None:
        """Shows a checkpoint within an epoch where there is no bar: a sign of life in a log."""
        if not streams.is_screen(self._stream):
            self.say(
                f"epoch {self._epoch + 1}/{self._epochs}  step {done}/{self.steps}  "
                f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}  kept"
            )

    def say(self, line: str) -> None:
        """Adds a line below what is drawn."""
        if self._width:
            self.abandon()
        print(line, file=self._stream, flush=True)

    def finish(self, epoch: Epoch) -> None:
        """Ends the epoch with its figures."""
        self._seconds.append(epoch.seconds)
        # The first epoch of a process compiles the net, too.
        pace = statistics.median(self._seconds[1:] or self._seconds)
        shown = {
            "seconds": f"{epoch.seconds:.1f}",
            "input": f"{epoch.input_share:.1%}",
            "left": duration(pace * (self._epochs - epoch.epoch)),
        }
        figures = [shown.get(name) or f"{getattr(epoch, name):.4f}" for name in self._columns]
        self._draw(self._row(f"{epoch.epoch}/{self._epochs}", *figures))
        self.abandon()

    def abandon(self) -> None:
        """Leaves the line as it is and goes on to the next."""
        self._stream.write("\n")
        self._stream.flush()
        self._width = 0

    def _row(self, first: str, *others: str) -> str:
        width = max(len("epoch"), len(f"{self._epochs}/{self._epochs}"))
        cells = [
            f"{cell:>{max(len(name), 7)}}" for name, cell in zip(self._columns, others, strict=True)
        ]
        return "  ".join([f"{first:>{width}}", *cells])

    def _draw(self, line: str) -> None:
        start = "\r" if streams.is_screen(self._stream) else ""
        self._stream.write(f"{start}{line:{self._width}}")
        self._stream.flush()
        self._width = len(line)


def duration(seconds: float) -> str:
    """Returns a time as a person would say it: "45 s", "12 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
