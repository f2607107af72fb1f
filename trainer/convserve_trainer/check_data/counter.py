"""How many pictures are done, on a terminal; nothing anywhere else."""

import time
from typing import TextIO

from convserve_trainer.host import streams

REDRAW_S = 0.1


class Counter:
    """One line that is drawn over and over, and gone in the end."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._started = self._drawn = time.monotonic()
        self._width = 0

    def __call__(self, done: int) -> None:
        """Shows that so many are done; redraws ten times a second at most."""
        now = time.monotonic()
        if not streams.is_screen(self._stream):
            return
        if done == self._total:
            self._draw(f"comparing {done:,} pictures")
            return
        if now - self._drawn < REDRAW_S:
            return
        self._drawn = now
        left = (now - self._started) / done * (self._total - done)
        self._draw(f"decoding  {done:,}/{self._total:,} pictures  {left:.0f} s left")

    def clear(self) -> None:
        """Takes the line away."""
        if self._width:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, line: str) -> None:
        self._stream.write(f"\r{line:<{self._width}}")
        self._stream.flush()
        self._width = len(line)
