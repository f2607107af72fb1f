"""The plot of overload: what is answered in time, against how much comes."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness.command import BenchmarkError
from benchmarks.serving.overload_points import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 2
#: As wide as a telephone shows it, so that its text is never made smaller than it can be read.
_WIDTH_PX = 460
_PANEL_PX = 205
_DPI = 100
_MOST = 1.25
_TITLE = "Calls answered in time, as a share of the most that the server answers, against the load."
#: In a light and in a dark page.
_TEXT, _GRID = ("#1f2328", "#f0f6fc"), ("#d1d9e0", "#3d444d")
_COLOURS = (
    ("#0969da", "#4493f8"),
    ("#bc4c00", "#db6d28"),
    ("#8c959f", "#9198a1"),
    ("#bf8700", "#d29922"),
)
_MARKS = "osv^"


def write(path: Path, points: Sequence[Point]) -> None:
    """Draws the points of each workload in a panel of its own.

    Args:
        path: The file to write, .svg or .png; an SVG has colours for a dark page too.
        points: Of any workloads and servers. Those that were not reached are hollow.

    Raises:
        BenchmarkError: It has another ending.
    """
    kind = path.suffix[1:].lower()
    if kind not in ("svg", "png"):
        raise BenchmarkError(f"--plot: expected a name that ends in .png or .svg, got {path}")
    data = _drawn(points, kind)
    path.write_bytes(_adapting(data.decode()).encode() if kind == "svg" else data)


def _drawn(points: Sequence[Point], kind: str, shade: int = 0) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    workloads = list(dict.fromkeys(point.workload for point in points))
    # Those of today first, so that they have the same colours with and without another revision.
    servers = sorted({point.server for point in points}, reverse=True)
    servers.sort(key=_is_earlier)
    rows = -(-len(workloads) // _COLUMNS)
    colours = {
        server: _COLOURS[number % len(_COLOURS)][shade] for number, server in enumerate(servers)
    }
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "convserve",
        "font.family": ["DejaVu Sans"],
        "font.size": 8,
        **{f"{what}.color": _TEXT[shade] for what in ("text", "xtick", "ytick")},
        "axes.labelcolor": _TEXT[shade],
        "axes.edgecolor": _GRID[shade],
        "grid.color": _GRID[shade],
    }
    file = io.BytesIO()
    with mpl.rc_context(settings):
        size = (_WIDTH_PX / _DPI, (rows * _PANEL_PX + 20 + 14 * -(-len(servers) // 2)) / _DPI)
        figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
        panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True).flat
        for workload, axes in zip(workloads, panels, strict=False):
            _draw(axes, [point for point in points if point.workload == workload], colours)
        for axes in list(panels)[len(workloads) :]:
            axes.set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        background = "none" if kind == "svg" else ("white", "#0d1117")[shade]
        figure.savefig(file, format=kind, dpi=_DPI, facecolor=background, metadata=metadata)
    return file.getvalue()


def _draw(axes: "Axes", points: Sequence[Point], colours: dict[str, str]) -> None:
    axes.set_title(f"{points[0].workload}, {points[0].deadline_ms:g} ms", fontsize=9)
    for number, (server, colour) in enumerate(colours.items()):
        mine = [point for point in points if point.server == server]
        loads, shares = [one.load for one in mine], [min(one.good, _MOST) for one in mine]
        style = "--" if _is_earlier(server) else "-"
        axes.plot(loads, shares, style, color=colour, linewidth=1.5, label=server)
        for one, share in zip(mine, shares, strict=True):
            axes.plot(
                one.load, share, _MARKS[number % len(_MARKS)], markersize=4.5, color=colour,
                markerfacecolor=colour if one.reached else "none",
            )  # fmt: skip
    axes.set_facecolor("none")
    axes.set_xlim(0, None)
    axes.set_ylim(0, _MOST)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("load, times the most")
    axes.grid(linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _is_earlier(server: str) -> bool:
    return not server.endswith(", today")


def _adapting(svg: str) -> str:
    """Gives a drawing of Matplotlib its title, its size in pixels, and colours for dark pages."""
    rules = "\n".join(
        f'      [style*="{what}: {light}"] {{ {what}: {dark} !important; }}'
        for light, dark in (_TEXT, _GRID, *_COLOURS)
        for what in ("fill", "stroke")
    )
    style = f"<style>\n    @media (prefers-color-scheme: dark) {{\n{rules}\n    }}\n  </style>"
    height = re.search(r'height="([\d.]+)pt"', svg)
    assert height is not None
    pixels = round(float(height.group(1)) * _DPI / 72)
    svg = re.sub(r'width="[\d.]+pt"', f'width="{_WIDTH_PX}"', svg, count=1)
    svg = re.sub(r'height="[\d.]+pt"', f'height="{pixels}"', svg, count=1)
    # After the element svg, which is the first that has a view box.
    at = svg.index(">", svg.index("viewBox")) + 1
    return f"{svg[:at]}\n  <title>{_TITLE}</title>\n  {style}{svg[at:]}"
