"""How far a scoring is: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from typing import TextIO

#: Between two lines, s.
_EVERY_S = 10.0


class Progress:
    """Counts images on standard error.

    Args:
        images: in all.
        done: of those, before this run.
        stream: that it is shown on; None for standard error.
    """

    def __init__(self, images: int, done: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._images = images
        self._done = self._before = done
        self._bad = 0
        self._began = self._shown = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                file=self._stream,
                total=images,
                initial=done,
                unit="images",
                unit_scale=True,
                dynamic_ncols=True,
                leave=False,
            )

    def add(self, images: int, bad: int = 0) -> None:
        """Notes that images are done, and how many of them are not usable."""
        self._done += images
        self._bad += bad
        if self._bar is not None:
            if bad:
                self._bar.set_postfix_str(f"{self._bad:,} bad", refresh=False)
            self._bar.update(images)
        elif time.monotonic() - self._shown >= _EVERY_S:
            self._shown = time.monotonic()
            rate = (self._done - self._before) / (self._shown - self._began)
            self.say(
                f"{self._done:,} of {self._images:,} images, {self._bad:,} bad; {rate:,.0f} a "
                "second"
            )

    def say(self, line: str) -> None:
        """Writes a line."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Wipes the bar."""
        if self._bar is not None:
            self._bar.close()
