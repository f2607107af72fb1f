"""How figures look: one style, drawn twice, for light paper and for dark."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.host import user_cache
from convserve_trainer.html.section import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

WIDTH_IN = 6.0  # on a phone, 350 pixels: a point is 0.8 of a pixel, so letters are large here
DPI = 130
SMALL = 10.5  # points, of titles of small pictures
FRAME = "#ff9d5c"  # is seen on black and on white


@dataclass(frozen=True)
class Ink:
    """Colours.

    Attributes:
        paper: behind everything; the page's cards have the same one.
        text: of letters and axes.
        faint: of grids and of what is only there to compare with.
        first: of the convnet, or of the first of two.
        second: of the dense net, or of the second of two.
        third: of a mark.
    """

    paper: str
    text: str
    faint: str
    first: str
    second: str
    third: str


LIGHT = Ink("#ffffff", "#22262b", "#9aa1a9", "#1f6fb4", "#cc5a0a", "#1a8a5a")
DARK = Ink("#1b1f26", "#dfe3e8", "#737b86", "#6cb2f0", "#ff9d5c", "#5fd39c")

Paint = Callable[["Drawing", Ink], None]


def draw(
    name: str,
    height_in: float,
    paint: Paint,
    *,
    alt: str,
    caption: str,
    photographic: bool = False,
    page_only: bool = False,
) -> Figure:
    """Returns a figure.

    Args:
        name: of its files, without ending.
        height_in: inches; the width is the same for all.
        paint: draws it, once in each ink.
        alt: what is to be seen.
        caption: below it.
        photographic: whether it consists of pictures, not of lines.
        page_only: whether nobody wants its files; to save one takes most of a drawing's time.
    """
    user_cache.settle_libraries()
    import matplotlib as mpl
    from matplotlib.figure import Figure as Drawing

    kind = "png" if photographic else "svg"

    def saved(ink: Ink, kinds: Sequence[str]) -> dict[str, bytes]:
        with mpl.rc_context(_settings(ink)):
            drawing = Drawing(figsize=(WIDTH_IN, height_in), layout="constrained")
            paint(drawing, ink)
            return {kind: _saved(drawing, kind) for kind in kinds}

    light, dark = saved(LIGHT, [kind] if page_only else list(_METADATA)), saved(DARK, [kind])
    shown = light[kind], dark[kind]
    return Figure(name, alt, caption, shown, {} if page_only else light, photographic)


def picture(axes: "Axes", pixels: npt.NDArray[Any], title: str = "", **options: Any) -> None:
    """Shows pixels without axes: [H, W], [H, W, 1] or [H, W, 3], uint8 or float."""
    shown = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if shown.ndim == 2:
        options = {"cmap": "gray"} | options
    axes.imshow(shown, **{"interpolation": "nearest"} | options)
    bare(axes)
    if title:
        axes.set_title(title, fontsize=SMALL, pad=3)


def frame(axes: "Axes", row: int, column: int, size: int) -> None:
    """Frames a square of a picture, whose first pixel is in this row and column."""
    from matplotlib.patches import Rectangle

    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, size, size, fill=False, color=FRAME, linewidth=1.8))


def bare(axes: "Axes") -> None:
    """Takes ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def tiles(pictures: Sequence[npt.NDArray[Any]], across: int, gap: int = 1) -> npt.NDArray[Any]:
    """Returns pictures of one size, float [H, W], side by side in rows, NaN between them."""
    height, width = pictures[0].shape
    down = -(-len(pictures) // across)
    sheet = np.full((down * (height + gap) - gap, across * (width + gap) - gap), np.nan)
    for number, each in enumerate(pictures):
        row, column = divmod(number, across)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = each
    return sheet


def stretched(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns pixels between 0 and 1, the least 0 and the largest 1; all 0 where they are equal."""
    values = pixels.astype(np.float64)
    least, largest = values.min(), values.max()
    return (values - least) / (largest - least) if largest > least else np.zeros_like(values)


def _settings(ink: Ink) -> Any:  # Matplotlib types the keys one by one
    return {
        "svg.hashsalt": "convserve",
        "font.size": 11.5,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.labelsize": 11.5,
        "xtick.labelsize": 10.5,
        "ytick.labelsize": 10.5,
        "legend.fontsize": 11,
        "legend.frameon": False,
        "figure.facecolor": ink.paper,
        "savefig.facecolor": ink.paper,
        "axes.facecolor": ink.paper,
        "axes.edgecolor": ink.faint,
        "axes.labelcolor": ink.text,
        "axes.titlecolor": ink.text,
        "text.color": ink.text,
        "xtick.color": ink.text,
        "ytick.color": ink.text,
        "grid.color": ink.faint,
        "grid.alpha": 0.3,
        "axes.grid": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 2,
    }


_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}


def _saved(drawing: "Drawing", kind: str) -> bytes:
    content = io.BytesIO()
    drawing.savefig(content, format=kind, dpi=DPI, metadata=_METADATA[kind])
    return content.getvalue()
