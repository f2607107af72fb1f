"""A kernel of 3 x 3 that slides over 5 x 5 pixels: an SVG that moves, without a script."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure
from convserve_trainer.lecture.geometry import output_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

CELL = 34  # pixels of the SVG
STEP_S = 1.6  # at each position
GAP = 1.6  # cells between the three


def figure(
    pixels: npt.NDArray[Any], kernel: npt.NDArray[Any], output: npt.NDArray[Any], what: str
) -> Figure:
    """Returns the figure: an SVG that moves, and a PNG of its first position.

    Args:
        pixels: [5, 5].
        kernel: [3, 3].
        output: [3, 3], what it makes of them.
        what: the pixels are, for the caption.
    """
    positions = output_size(len(pixels), len(kernel))

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        grids = (pixels, kernel, output)
        for axes, values, title in zip(
            drawing.subplots(1, 3, width_ratios=(5, 3, 3)), grids, _TITLES, strict=True
        ):
            _still(axes, values, title, ink)
            if values is not kernel:
                figures.frame(axes, 0, 0, 3 if values is pixels else 1)

    drawn = figures.draw(
        "convolution-animated",
        2.3,
        paint,
        alt="Three grids of numbers: 5 by 5 pixels, a kernel of 3 by 3, and an output of 3 by 3. A "
        f"frame moves over the pixels; in each of {positions * positions} positions the sum of the "
        "nine products is written into the output.",
        caption=f"A kernel of 3 x 3 slides over 5 x 5 pixels, {what}: it fits {positions} times "
        f"along each side, which leaves an output of {positions} x {positions}. In the page the "
        "frame moves.",
    )
    light, dark = (_svg(pixels, kernel, output, ink) for ink in (figures.LIGHT, figures.DARK))
    return replace(drawn, shown=(light, dark), files={**drawn.files, "svg": light})


_TITLES = ("pixels", "kernel", "output")


def _still(axes: "Axes", values: npt.NDArray[Any], title: str, ink: figures.Ink) -> None:
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    axes.set_aspect("equal")
    for row, column in np.ndindex(*values.shape):
        axes.text(column, row, f"{values[row, column]:.3g}", ha="center", va="center")
    axes.set_title(title)
    figures.bare(axes)


def _svg(
    pixels: npt.NDArray[Any], kernel: npt.NDArray[Any], output: npt.NDArray[Any], ink: figures.Ink
) -> bytes:
    lefts = [0.3, 0.3 + 5 + GAP, 0.3 + 5 + GAP + 3 + GAP]
    width, height = lefts[2] + 3 + 0.3, 7.4
    positions = [(row, column) for row, column in np.ndindex(*output.shape)]
    total = STEP_S * len(positions)
    shown = 100 / len(positions)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * CELL:.0f} '
        f'{height * CELL:.0f}" font-family="sans-serif" font-size="14" fill="{ink.text}">',
        "<style>.position{opacity:0}.first{opacity:1}"
        # Who asked for less motion sees the first position only.
        "@media (prefers-reduced-motion:no-preference){.position{opacity:0;"
        f"animation:position {total:.1f}s step-end infinite}}}}"
        f"@keyframes position{{0%{{opacity:1}}{shown:.3f}%{{opacity:0}}100%{{opacity:0}}}}</style>",
        f'<rect width="100%" height="100%" fill="{ink.paper}"/>',
    ]
    for left, values, title in zip(lefts, (pixels, kernel, output), _TITLES, strict=True):
        middle = (left + values.shape[1] / 2) * CELL
        parts.append(_text(middle, 0.65 * CELL, title, "bold"))
        parts += [
            _cell(left + column, 1 + row, f"{values[row, column]:.2g}", ink)
            for row, column in np.ndindex(*values.shape)
        ]
    for number, (row, column) in enumerate(positions):
        window = pixels[row : row + 3, column : column + 3]
        first = " first" if number == 0 else ""
        parts.append(
            f'<g class="position{first}" style="animation-delay:{STEP_S * number:.1f}s">'
            + _frame(lefts[0] + column, 1 + row, 3, ink.second)
            + _frame(lefts[2] + column, 1 + row, 1, ink.third)
            + _text(
                width * CELL / 2, 6.9 * CELL, _sum(window, kernel, float(output[row, column])), ""
            )
            + "</g>"
        )
    return "\n".join([*parts, "</svg>"]).encode()


def _cell(x: float, y: float, value: str, ink: figures.Ink) -> str:
    return (
        f'<rect x="{x * CELL:.1f}" y="{y * CELL:.1f}" width="{CELL}" height="{CELL}" fill="none" '
        f'stroke="{ink.faint}"/>' + _text((x + 0.5) * CELL, (y + 0.64) * CELL, value, "")
    )


def _frame(x: float, y: float, cells: int, colour: str) -> str:
    side = cells * CELL
    return (
        f'<rect x="{x * CELL:.1f}" y="{y * CELL:.1f}" width="{side}" height="{side}" fill="none" '
        f'stroke="{colour}" stroke-width="4"/>'
    )


def _text(x: float, y: float, text: str, weight: str) -> str:
    bold = f' font-weight="{weight}"' if weight else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle"{bold}>{text}</text>'


def _sum(window: npt.NDArray[Any], kernel: npt.NDArray[Any], value: float) -> str:
    products = [
        f"{kernel[position]:.2g}·{window[position]:.2g}"
        for position in np.ndindex(*kernel.shape)
        if kernel[position]
    ]
    return f"{' + '.join(products)} = {value:.2g}".replace("+ -", "- ")
