"""What was measured, as a Markdown table and as JSON."""

import datetime
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convserve_server.cpus import available_cpus

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "protobuf", "pygrpc-native")
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
        cpu_ratio=cpu / _median_cpu(baseline),
    )


def _median_cpu(group: Sequence[Measurement]) -> float:
    return statistics.median(one.cpu_us_a_call for one in group)


def markdown(table: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [_HEADER, ("---:", "---:", "---", *["---:"] * (len(_HEADER) - 3))]
    for row in table:
        spread = f"{row.calls_per_s_min:.0f}..{row.calls_per_s_max:.0f}"
        line = (
            f"{row.cell.callers}",
            f"{row.cell.images}",
            row.server,
            f"{row.calls_per_s:.0f} ({spread})",
            f"{row.images_per_s:.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.cpu_us_a_call:.0f}",
            f"{row.calls_ratio:.2f}",
            f"{row.cpu_ratio:.2f}",
        )
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict[str, str]:
    """What the figures depend on: processor, CPUs allowed, system, versions, date (UTC)."""
    return {
        "processor": _processor(),
        "cpus": f"{available_cpus():g}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def heading(on: dict[str, str], run: dict[str, Any]) -> str:
    """The line above the table: machine, versions, and how it was measured."""
    versions = ", ".join(f"{package} {on[package]}" for package in _PACKAGES)
    return (
        f"{on['processor']}, {on['cpus']} CPUs for servers and load together; {on['system']}; "
        f"Python {on['python']}; {versions}; {run['model']}; {run['driver']} over at most "
        f"{run['connections']} connections; "
        f"rounds x seconds: {run['rounds']} x {run['seconds']:g}; {on['date']}."
    )


def document(
    on: dict[str, str],
    run: dict[str, Any],
    measurements: Sequence[Measurement],
    table: Sequence[Row],
) -> dict[str, Any]:
    """All of it, ready for JSON."""
    return {
        "machine": on,
        "run": run,
        "measurements": [asdict(one) for one in measurements],
        "rows": [asdict(row) for row in table],
    }
