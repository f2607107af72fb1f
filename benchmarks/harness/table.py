"""What was measured of servers, as a Markdown table and as JSON."""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_HEADER = (
    "callers",
    "images a call",
    "server",
    "calls/s, median (min..max)",
    "images/s",
    "p50 ms",
    "p99 ms",
    "server CPU µs a call",
    "calls/s to baseline",
    "CPU to baseline",
)


@dataclass(frozen=True)
class Cell:
    """One kind of load: calls in flight, and images in each call."""

    callers: int
    images: int

    def __str__(self) -> str:
        return f"{self.callers} callers, {self.images} images a call"


#: The loads under which servers are compared.
CELLS = (Cell(1, 1), Cell(16, 1), Cell(64, 1), Cell(256, 1), Cell(4, 64))


@dataclass(frozen=True)
class Measurement:
    """One server under one kind of load, once."""

    server: str
    cell: Cell
    round: int
    calls: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    #: User and system time of all processes of the server, for each answered call.
    cpu_us_a_call: float


@dataclass(frozen=True)
class Row:
    """All rounds of one server under one kind of load: medians, and their ratios."""

    server: str
    cell: Cell
    calls_per_s: float
    calls_per_s_min: float
    calls_per_s_max: float
    images_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_a_call: float
    calls_ratio: float
    cpu_ratio: float


def rows(measurements: Sequence[Measurement], baseline: str) -> list[Row]:
    """The table's rows: by cell, then server, in the order in which they were first measured."""
    groups: dict[tuple[Cell, str], list[Measurement]] = {}
    for cell in dict.fromkeys(one.cell for one in measurements):
        for server in dict.fromkeys(one.server for one in measurements):
            groups[cell, server] = [
                one for one in measurements if (one.cell, one.server) == (cell, server)
            ]
    return [
        _row(cell, server, group, groups[cell, baseline])
        for (cell, server), group in groups.items()
    ]


def _row(
    cell: Cell, server: str, group: Sequence[Measurement], baseline: Sequence[Measurement]
) -> Row:
    rates = [one.calls_per_s for one in group]
    rate, cpu = statistics.median(rates), _median_cpu(group)
    return Row(
        server=server,
        cell=cell,
        calls_per_s=rate,
        calls_per_s_min=min(rates),
        calls_per_s_max=max(rates),
        images_per_s=rate * cell.images,
        p50_ms=statistics.median(one.p50_ms for one in group),
        p99_ms=statistics.median(one.p99_ms for one in group),
        cpu_us_a_call=cpu,
        calls_ratio=rate / statistics.median(one.calls_per_s for one in baseline),
        # Of a measurement so short that its processor time is less than the kernel counts: nan.
        cpu_ratio=cpu / (_median_cpu(baseline) or math.nan),
    )


def _median_cpu(group: Sequence[Measurement]) -> float:
    return statistics.median(one.cpu_us_a_call for one in group)


def markdown(table: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        (
            f"{row.cell.callers}",
            f"{row.cell.images}",
            row.server,
            f"{row.calls_per_s:.0f} ({row.calls_per_s_min:.0f}..{row.calls_per_s_max:.0f})",
            f"{row.images_per_s:.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.cpu_us_a_call:.0f}",
            f"{row.calls_ratio:.2f}",
            f"{row.cpu_ratio:.2f}",
        )
        for row in table
    ]
    return grid(_HEADER, lines, {"server"})


def grid(header: Sequence[str], lines: Sequence[Sequence[str]], text: Collection[str]) -> str:
    """Any Markdown table.

    Args:
        header: names of the columns.
        lines: what is below, a cell for each column.
        text: columns that do not hold figures.
    """
    rule = ["---" if name in text else "---:" for name in header]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))
