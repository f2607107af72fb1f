"""What a run showed, as lines for a terminal and as an object for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

from convserve.command.terminal_text import printable
from convserve_bench.histogram import Histogram
from convserve_bench.measured import Measured
from convserve_bench.workload import Workload

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def latencies_ms(latencies: Histogram) -> dict[str, float | None]:
    """Returns the percentiles of latencies, in milliseconds; None where there are none."""
    figures = {name: latencies.percentile(share) for name, share in _SHARES.items()}
    figures |= {"max": latencies.longest_s or math.nan, "mean": latencies.mean()}
    return {name: None if math.isnan(s) else s * 1e3 for name, s in figures.items()}


def lines(measured: Measured) -> list[str]:
    """Returns a run for a terminal."""
    rows = [
        ("calls/s", f"{measured.calls_per_s:,.1f}"),
        ("images/s", f"{measured.calls_per_s * measured.images:,.1f}"),
        ("latency ms", _named(latencies_ms(measured.latencies))),
    ]
    if measured.server_us:
        rows.append(("server µs", _named(measured.server_us) + "  (means)"))
    rows.append(
        (
            "generator",
            f"{measured.cpu_us_a_call:.1f} µs of CPU a call, {measured.cpu_share:.0%} of a core",
        )
    )
    if measured.load.rate is not None and measured.waited:
        rows.append(("waited", f"{measured.waited:,} of {measured.scheduled:,} for a caller"))
    answered, failed = measured.latencies.count, measured.failures.total
    rows.append(("answered", f"{answered:,} of {answered + failed:,} calls"))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def failure_lines(measured: Measured) -> list[str]:
    """Returns the failures by status, each with its first message, the most frequent first."""
    counts = sorted(measured.failures.counts.items(), key=lambda each: -each[1])
    return [
        f"failed: {count:,} {name}: {printable(measured.failures.messages[name])}"
        for name, count in counts
    ]


def heading(workload: Workload, measured: Measured) -> str:
    """Returns a line that says what was done to what."""
    load = measured.load
    how = (
        counted(load.callers, "caller")
        if load.rate is None
        else f"{load.rate:g} calls/s due, at most {load.callers} in flight"
    )
    return (
        f"{workload.model}, {counted(workload.images, 'image')} a call ({workload.what},"
        f" {workload.request_bytes / 1e3:.1f} kB), {how},"
        f" {counted(load.connections, 'connection')}, {measured.seconds:.1f} s"
    )


def as_json(workload: Workload, measured: Measured, server: str) -> dict[str, object]:
    """Returns a run with its settings, for json.dumps."""
    failures = measured.failures
    load = asdict(measured.load)
    return {
        "server": server,
        "model": workload.model,
        "images": workload.images,
        "sent": workload.what,
        "request_bytes": workload.request_bytes,
        "loop": "closed" if measured.load.rate is None else "open",
        **load,
        "seconds_measured": measured.seconds,
        "calls_per_s": measured.calls_per_s,
        "images_per_s": measured.calls_per_s * measured.images,
        "answered": measured.latencies.count,
        "failed": failures.total,
        "latency_ms": latencies_ms(measured.latencies),
        "errors": {
            name: {"count": count, "message": failures.messages[name]}
            for name, count in failures.counts.items()
        },
        "server_us": measured.server_us,
        "generator": {
            "cpu_us_a_call": measured.cpu_us_a_call,
            "cpu_share": measured.cpu_share,
            "scheduled": measured.scheduled,
            "waited": measured.waited,
            "late": measured.late,
            "unsent": measured.unsent,
        },
        "connections_lost": measured.lost,
        "warnings": measured.warnings,
    }


def _named(figures: Mapping[str, float | None]) -> str:
    return "  ".join(
        f"{name} {'-' if value is None else significant(value)}" for name, value in figures.items()
    )


def counted(number: int, what: str) -> str:
    """Returns a number of things: "1 image", "1,000 images"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def significant(value: float) -> str:
    """Returns a number with three digits that say something, or all before the point."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
