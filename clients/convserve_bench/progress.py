"""The line of a run that goes on: how fast it was in the last second."""

from __future__ import annotations

import shutil
from typing import TextIO

from convserve_bench.histogram import Histogram
from convserve_bench.report import latencies_ms, significant
from convserve_bench.tally import Tally

_EVERY_S = 1.0
_WIPE = "\r\x1b[K"


class Progress:
    """Draws one line each second, over the last one."""

    def __init__(self, stream: TextIO, label: str = "") -> None:
        """Draws nothing yet.

        Args:
            stream: A terminal.
            label: Is written first.
        """
        self.label = label
        self._stream = stream
        self._shown_s = 0.0
        self._seen = 0
        self._before = Histogram()

    def __call__(self, since_s: float, tally: Tally) -> None:
        """Draws the line if it is time to.

        Args:
            since_s: Seconds since the first call.
            tally: What was counted so far.
        """
        if since_s < self._shown_s:  # Another run has begun.
            self._shown_s, self._seen, self._before = 0.0, 0, Histogram()
        passed_s = since_s - self._shown_s
        if passed_s < _EVERY_S:
            return
        rate = (tally.seen - self._seen) / passed_s
        times = latencies_ms(tally.histogram.since(self._before))
        shown = [f"{self.label}{since_s:3.0f} s", f"{rate:,.0f} calls/s"]
        shown += [f"{name} {significant(times[name] or 0)} ms" for name in ("p50", "p99")]
        if tally.failures.total:
            shown.append(f"{tally.failures.total:,} failed")
        if not tally.histogram.count:
            shown[2:4] = ["(warm-up)"]
        line = "  ".join(shown)[: shutil.get_terminal_size().columns - 1]
        self._stream.write(_WIPE + line)
        self._stream.flush()
        self._shown_s, self._seen = since_s, tally.seen
        self._before = tally.histogram.copy()

    def close(self) -> None:
        """Wipes the line."""
        self._stream.write(_WIPE)
        self._stream.flush()
