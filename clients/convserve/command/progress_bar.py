"""The bar of a long run: how many files are done of how many, how fast, and how many failed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TextIO


class ProgressBar:
    """Draws one line and draws it again; the number of files is counted beside the work."""

    def __init__(self, stream: TextIO, everything: Iterable[object]) -> None:
        """Begins to draw, and to count.

        Args:
            stream: A terminal.
            everything: Gone through once in a thread, only to be counted.
        """
        # Here, since it takes as long to import as one file takes to classify.
        from tqdm import tqdm

        self._bar = tqdm(
            file=stream, unit="images", unit_scale=True, dynamic_ncols=True, leave=False
        )
        self._failed = 0
        self._closed = threading.Event()
        # A daemon: so that no slow disk keeps the command from ending.
        threading.Thread(target=self._count, args=(everything,), daemon=True).start()

    def step(self, failed: int) -> None:
        """Notes that one more file is done.

        Args:
            failed: Files that have failed so far.
        """
        if failed != self._failed:
            self._failed = failed
            self._bar.set_postfix_str(f"{failed:,} failed", refresh=False)
        self._bar.update()

    def say(self, line: str) -> None:
        """Writes a line above the bar."""
        self._bar.write(line, file=self._bar.fp)

    def close(self) -> None:
        """Wipes the line."""
        self._closed.set()
        self._bar.close()

    def _count(self, everything: Iterable[object]) -> None:
        total = 0
        for _ in everything:
            if self._closed.is_set():
                return
            total += 1
        self._bar.total = total
