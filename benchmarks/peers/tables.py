"""What was measured of peers as Markdown: figures by cell and server, and their refusals."""

import re
import statistics
from collections.abc import Sequence

from benchmarks.harness.servers import BASELINE
from benchmarks.harness.table import Row, grid, rows
from benchmarks.peers.measurement import Record

_FIGURES = (
    "callers",
    "images a call",
    "server",
    "protocol",
    "calls/s, median (min..max)",
    "p50 ms",
    "p99 ms",
    "server CPU µs a call, median (least)",
    "idle MiB",
    "start s",
    "calls/s to naive, medians (best rounds)",
)
_REFUSALS = ("server", "sent", "status", "message")
#: Characters of a message or reason that are shown.
_SHOWN = 120
_NONE = "-"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def figures(records: Sequence[Record]) -> str:
    """A row for each cell and server, then one for each server that failed."""
    lines = [_line(row, ratio, record) for row, ratio, record in _rows(records)]
    for record in records:
        if record.failure:
            names = (_NONE, _NONE, record.server, record.protocol, _shown(record.failure))
            lines.append((*names, *[_NONE] * (len(_FIGURES) - len(names))))
    return grid(_FIGURES, lines, {"server", "protocol"})


def _rows(records: Sequence[Record]) -> list[tuple[Row, str, Record]]:
    """Each row with its ratio to the baseline, if that was measured, and its record."""
    good = {record.server: record for record in records if not record.failure}
    measured = [one for record in good.values() for one in record.measurements]
    if not measured:
        return []
    # Ratios are to anything if there is no baseline, and are not shown.
    table = rows(measured, BASELINE if BASELINE in good else measured[0].server)
    best = {row.cell: row.calls_per_s_max for row in table if row.server == BASELINE}
    return [
        (
            row,
            f"{row.calls_ratio:.2f} ({row.calls_per_s_max / best[row.cell]:.2f})"
            if BASELINE in good
            else _NONE,
            good[row.server],
        )
        for row in table
    ]


def _line(row: Row, ratio: str, record: Record) -> tuple[str, ...]:
    return (
        f"{row.cell.callers}",
        f"{row.cell.images}",
        row.server,
        record.protocol,
        f"{row.calls_per_s:.0f} ({row.calls_per_s_min:.0f}..{row.calls_per_s_max:.0f})",
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        f"{row.cpu_us_a_call:.0f} ({_least_cpu_us(row, record):.0f})",
        f"{statistics.median(record.idle_bytes) / 2**20:.0f}",
        f"{statistics.median(record.start_s):.1f}",
        ratio,
    )


def _least_cpu_us(row: Row, record: Record) -> float:
    return min(one.cpu_us_a_call for one in record.measurements if one.cell == row.cell)


def refusals(records: Sequence[Record]) -> str:
    """A row for each server that was asked with a wrong shape."""
    lines = [
        (record.server, refusal.sent, refusal.status, _shown(refusal.message))
        for record in records
        if (refusal := record.refusal) is not None and not record.failure
    ]
    return grid(_REFUSALS, lines, _REFUSALS)


def _shown(text: str) -> str:
    """On one line of a table, without colours, and cut."""
    plain = _COLOUR.sub("", text)
    line = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    cut = line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
    return cut.replace("|", "\\|")
