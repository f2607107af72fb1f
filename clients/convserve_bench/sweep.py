"""Latency against load: the most that a server answers, then shares of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from convserve.errors import UnexpectedReply
from convserve_bench.generator import Watch
from convserve_bench.load import Load
from convserve_bench.measured import Measured, measure
from convserve_bench.report import latencies_ms, significant
from convserve_bench.workload import Workload

SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)

_COLUMNS = ("load", "due/s", "calls/s", "p50 ms", "p99 ms", "p99.9 ms", "p99/p50", "failed")
_WIDTHS = (6, 9, 9, 8, 8, 8, 8, 7)


@dataclass(frozen=True)
class Step:
    """One run of a sweep.

    Attributes:
        share: Of the most calls a second; None: the closed loop that found these.
        measured: What it showed.
    """

    share: float | None
    measured: Measured


def steps(load: Load, workload: Workload, watch: Watch) -> Iterator[Step]:
    """Measures the closed loop, then the open one at each share of its rate.

    Raises:
        UnexpectedReply: The closed loop had no answer, so there is no rate to measure shares of.
        ServerUnavailable: The server could not be connected to.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    closed = measure(replace(load, rate=None), workload, watch)
    yield Step(None, closed)
    if not closed.calls_per_s:
        raise UnexpectedReply("no call was answered, so there is no rate to measure shares of")
    for share in SHARES:
        rate = share * closed.calls_per_s
        yield Step(share, measure(replace(load, rate=rate), workload, watch))


def header() -> str:
    """Returns the first line of the table."""
    return "  ".join(f"{name:>{width}}" for name, width in zip(_COLUMNS, _WIDTHS, strict=True))


def row(step: Step) -> str:
    """Returns the line of a step."""
    measured = step.measured
    times = latencies_ms(measured.latencies)
    p50, p99 = times["p50"], times["p99"]
    cells = (
        "most" if step.share is None else f"{step.share:.0%}",
        "-" if measured.load.rate is None else f"{measured.load.rate:,.0f}",
        f"{measured.calls_per_s:,.0f}",
        *("-" if time is None else significant(time) for time in (p50, p99, times["p99.9"])),
        f"{p99 / p50:.1f}" if p50 and p99 else "-",
        f"{measured.failures.total:,}",
    )
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
