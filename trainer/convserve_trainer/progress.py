"""The progress of an epoch: a bar on a terminal, one line for each epoch anywhere else."""

import time
from collections.abc import Mapping
from typing import TextIO

BAR = 14  # characters; the line fits a terminal of 80
REDRAW_S = 0.1


class Progress:
    """Draws one epoch after another."""

    def __init__(self, stream: TextIO, epochs: int, steps: int) -> None:
        self._stream = stream
        self._epochs = epochs
        self._steps = steps
        self._epoch = 0
        self._started = 0.0
        self._first = 0.0
        self._drawn = 0.0
        self._width = 0

    def start(self, epoch: int) -> None:
        """Begins an epoch, counted from 0."""
        self._epoch = epoch
        self._started = time.monotonic()
        self._drawn = 0.0

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """Shows that so many steps of the epoch are done; redraws ten times a second at most."""
        now = time.monotonic()
        if done == 1:  # it compiles the net, and so says nothing of the time left
            self._first = now
            return
        if not self._stream.isatty() or now - self._drawn < REDRAW_S:
            return
        self._drawn = now
        filled = BAR * done // self._steps
        left = (now - self._first) / (done - 1) * (self._steps - done)
        self._draw(f"[{'=' * filled:{BAR}}] {done}/{self._steps}", logs, f"{left:.0f} s left")

    def finish(self, logs: Mapping[str, float]) -> None:
        """Ends the epoch with its figures."""
        took = time.monotonic() - self._started
        self._draw(f"{self._steps}/{self._steps}", logs, f"{took:.1f} s")
        self.abandon()

    def abandon(self) -> None:
        """Leaves the line as it is and goes on to the next."""
        self._stream.write("\n")
        self._stream.flush()
        self._width = 0

    def _draw(self, done: str, logs: Mapping[str, float], last: str) -> None:
        line = (
            f"epoch {self._epoch + 1}/{self._epochs}  {done}  "
            f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}  {last}"
        )
        start = "\r" if self._stream.isatty() else ""
        self._stream.write(f"{start}{line:{self._width}}")
        self._stream.flush()
        self._width = len(line)
