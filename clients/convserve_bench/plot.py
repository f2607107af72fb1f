"""The plot of a sweep: latency against load."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from convserve.errors import ConvserveError
from convserve_bench.report import counted
from convserve_bench.sweep import Step
from convserve_bench.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_IN = (8.0, 4.8)
_DPI = 150
_CURVES = (
    ("p99.9", 0.999, "#999999", "^"),
    ("p99", 0.99, "#d95f02", "s"),
    ("p50", 0.5, "#1f77b4", "o"),
)
_SHARES = tuple(share for _, share, _, _ in _CURVES)
_MOST, _INVALID = "#555555", "#000000"


def check_there() -> None:
    """Looks for Matplotlib before there is any load.

    Raises:
        ConvserveError: It is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConvserveError(
            "--plot needs Matplotlib, which is not here: pip install 'convserve[plot]'"
        )


def write(
    path: str, steps: Sequence[Step], workload: Workload, server: str, when: datetime.date
) -> None:
    """Draws a sweep.

    Args:
        path: The file to write; its ending says which format.
        steps: Of the sweep, the closed loop first.
        workload: What was sent.
        server: The address that it was sent to.
        when: The day of the sweep.

    Raises:
        ConvserveError: The file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Figure without pyplot: nothing global, and no window is looked for.
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    draw(figure.subplots(), steps, workload, f"{server}, {when.isoformat()}")
    kind = os.path.splitext(path)[1][1:].lower()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    try:
        with mpl.rc_context({"svg.hashsalt": "convserve"}):
            figure.savefig(path, format=kind, dpi=_DPI, metadata=metadata)
    except OSError as error:
        raise ConvserveError(f"--plot: cannot write {path}: {error.strerror}") from error


def draw(axes: Axes, steps: Sequence[Step], workload: Workload, of: str) -> None:
    """Draws the curves, and crosses on the points that are not valid.

    Args:
        axes: Where.
        steps: Of the sweep, the closed loop first.
        workload: What was sent.
        of: Server and date.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    most = next(step.measured for step in steps if step.share is None)
    runs = [
        step.measured for step in steps if step.share is not None and step.measured.latencies.count
    ]
    rates = [run.load.rate or 0.0 for run in runs]
    for name, share, colour, mark in _CURVES:
        times = [run.latencies.percentile(share) * 1e3 for run in runs]
        axes.plot(rates, times, f"-{mark}", color=colour, markersize=5, label=name)
    bad = [(rate, run) for rate, run in zip(rates, runs, strict=True) if run.sent_late]
    if bad:
        crosses = [
            (rate, run.latencies.percentile(share)) for rate, run in bad for share in _SHARES
        ]
        axes.plot(
            [rate for rate, _ in crosses], [time * 1e3 for _, time in crosses],
            "x", color=_INVALID, markersize=11, markeredgewidth=2, label="invalid: calls sent late",
        )  # fmt: skip
    axes.axvline(most.calls_per_s, color=_MOST, linestyle=":", linewidth=1)
    axes.annotate(
        f"most: {most.calls_per_s:,.0f} calls/s with {counted(most.load.callers, 'caller')}",
        (most.calls_per_s, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(-5, 0),
        textcoords="offset points",
        ha="right",
        color=_MOST,
        fontsize=8,
    )
    axes.set_yscale("log")
    axes.set_xlim(0, most.calls_per_s * 1.03)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(plain)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("load (calls due each second)")
    axes.set_ylabel("latency from when a call was due (ms)")
    axes.grid(alpha=0.3, which="major")
    title = f"{workload.model}, {counted(workload.images, 'image')} a call ({workload.what})"
    load = most.load
    how = (
        f"{of}; {counted(load.callers, 'caller')}, {counted(load.connections, 'connection')},"
        f" {load.seconds:g} s a point after {load.warm_up_s:g} s"
    )
    axes.set_title(f"{title}\n{how}", fontsize=9)
    axes.legend(frameon=False, loc="upper left")
