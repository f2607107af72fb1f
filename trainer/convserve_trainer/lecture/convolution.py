"""A convolution by hand, and all sizes and counts by formula, against Keras."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.lecture import animation, geometry
from convserve_trainer.lecture.material import Material
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from convserve_trainer.lecture.net import Net

TOPIC = "convolution"
VERTICAL_EDGE = np.array([[-1, 0, 1]] * 3, np.float64)
CASES = (  # side, window, stride, padding
    (28, 3, 1, "valid"),
    (28, 3, 1, "same"),
    (28, 3, 2, "valid"),
    (28, 3, 2, "same"),
    (28, 5, 1, "valid"),
    (28, 5, 3, "valid"),
    (13, 3, 1, "valid"),
    (11, 2, 2, "valid"),
    (150, 3, 1, "valid"),
)


def convolved(
    pixels: npt.NDArray[Any], kernel: npt.NDArray[Any], stride: int = 1
) -> npt.NDArray[np.float64]:
    """Slides a kernel over a picture: at each position, the sum of products.

    The kernel is not turned round, so that mathematics calls it a cross-correlation.

    Args:
        pixels: [H, W].
        kernel: [rows, columns], no larger.
        stride: from one position to the next.

    Returns:
        float64 [H', W'], sizes as `geometry.output_size` says.
    """
    windows = np.lib.stride_tricks.sliding_window_view(pixels.astype(np.float64), kernel.shape)
    found: npt.NDArray[np.float64] = (windows[::stride, ::stride] * kernel).sum(axis=(2, 3))
    return found


def make_section(material: Material) -> Section:
    """Returns the section."""
    digit = material.digit(4)[..., 0].astype(np.float64) / 255
    ours = convolved(digit, VERTICAL_EDGE)
    theirs = _by_keras(digit, VERTICAL_EDGE)
    apart = float(np.abs(ours - theirs).max())
    material.done(0.5, "kernel slid over a digit")
    row, column = _busiest(ours)
    window = digit[row : row + 3, column : column + 3]
    rows, wrong = _sizes()
    parts: list[Part] = [
        "A convolution lays a small kernel on the picture, multiplies each weight with the pixel "
        "below it, adds the products up, and moves on by one pixel. The same nine weights are used "
        "everywhere: a pattern learned in one corner is known in all of them.",
        f"Below, the kernel `(-1 0 1)` in three rows slides over a digit. At row {row}, column "
        f"{column} it gives {_worked(window)} = {ours[row, column]:.2f}: dark on its left, bright "
        f"on its right. Our own arithmetic and Keras's Conv2D differ by {apart:.1e} at most.",
        _figure(digit, ours, row, column),
        _animated(digit, row, column),
        "A window of 3 pixels fits only 26 times along 28, so the border is lost: a 28 x 28 "
        "picture becomes 26 x 26. In general `floor((n - k + 2p) / s) + 1` positions are left of n "
        "pixels for a window of k, a stride of s and p rows of padding on either side; the padding "
        "called same adds as many zeros as leave ceil(n / s).",
        Table(
            ("n", "window", "stride", "padding", "formula", "Keras"),
            rows,
            "Output sizes" + (", formula and Keras agree on each" if not wrong else ""),
        ),
        *_bias(material, digit),
        *_layers(material.net),
    ]
    return Section(TOPIC, "Convolution by hand", parts)


def _animated(digit: npt.NDArray[Any], row: int, column: int) -> Figure:
    """Returns the animation over the 5 x 5 pixels of a digit around a window."""
    top, left = (
        min(max(position - 1, 0), side - 5)
        for position, side in zip((row, column), digit.shape, strict=True)
    )
    pixels = digit[top : top + 5, left : left + 5].round(1)
    what = f"those of the digit from row {top}, column {left}, rounded"
    return animation.figure(pixels, VERTICAL_EDGE, convolved(pixels, VERTICAL_EDGE), what)


def _bias(material: Material, digit: npt.NDArray[Any]) -> list[Part]:
    """Returns what becomes of a sum of products in the first convolution of the net."""
    if not material.net.convolutions:
        return []
    layer = material.net.convolutions[0]
    text = (
        "What the kernel gives is not yet the answer: `filter = convolution(input)`, then "
        "`output = activation(filter + bias)`. The bias, one for each filter, shifts the point "
        "from which on it answers; a relu lets through what is above 0 and nothing else."
    )
    if layer.bias is None or getattr(layer.activation, "__name__", "") != "relu":
        return [text]
    batch = (digit * 255).round().astype(np.uint8)[np.newaxis, ..., np.newaxis]
    answers = material.net.maps(layer.name, batch)[0]
    bias = np.asarray(layer.bias)
    number = int(answers.max(axis=(0, 1)).argmax())
    row, column = _busiest(answers[..., number].astype(np.float64))
    value = float(answers[row, column, number])
    summed = value - bias[number]
    return [
        f"{text} In your net's {layer.name}, filter {number} has the bias {bias[number]:.3f}; at "
        f"row {row}, column {column} of this digit its sum of products is {summed:.3f}, and its "
        f"output relu({summed:.3f} {'-' if bias[number] < 0 else '+'} {abs(bias[number]):.3f}) = "
        f"{value:.3f}."
    ]


def _by_keras(pixels: npt.NDArray[Any], kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    keras = keras_backend.load()
    layer = keras.layers.Conv2D(1, kernel.shape, use_bias=False)
    batch = pixels[np.newaxis, ..., np.newaxis].astype(np.float32)
    layer.build(batch.shape)
    layer.set_weights([kernel[..., np.newaxis, np.newaxis].astype(np.float32)])
    answer: npt.NDArray[Any] = layer(batch).numpy()[0, ..., 0]
    return answer


def _busiest(values: npt.NDArray[np.float64]) -> tuple[int, int]:
    row, column = np.unravel_index(values.argmax(), values.shape)
    return int(row), int(column)


def _worked(window: npt.NDArray[np.float64]) -> str:
    right = " + ".join(f"{value:.2f}" for value in window[:, 2])
    left = " + ".join(f"{value:.2f}" for value in window[:, 0])
    return f"`({right}) - ({left})`"


def _sizes() -> tuple[list[list[str]], int]:
    """Returns the rows of the table, and in how many the formula and Keras differ."""
    keras = keras_backend.load()
    rows, wrong = [], 0
    for side, window, stride, padding in CASES:
        layer = keras.layers.Conv2D(1, window, strides=stride, padding=padding)
        computed = layer.compute_output_shape((1, side, side, 1))[1]
        formula = geometry.output_size(side, window, stride, padding)
        wrong += computed != formula
        rows.append([*map(str, (side, window, stride)), padding, str(formula), str(computed)])
    return rows, wrong


def _layers(net: "Net") -> list[Part]:
    """Returns the table of the net's layers with counts of parameters, and what it shows."""
    rows, known, counted, unlike = [], 0, 0, []
    for layer in net.model.layers:
        count, formula = layer.count_params(), geometry.parameters(layer)
        shape = " x ".join(f"{size:,}" for size in layer.output.shape[1:])
        shown = geometry.formula(layer) or ("-" if formula == 0 else "no formula here")
        rows.append([layer.name, shape, shown, "-" if formula is None else f"{formula:,}"])
        rows[-1].append(f"{count:,}")
        counted += count
        if formula is not None:
            known += formula
            unlike += [layer.name] if formula != count else []
    agreed = (
        "On every layer the formula counts what Keras counts"
        if not unlike and known == counted
        else f"Formula and Keras differ on {', '.join(unlike) or 'layers without a formula'}"
    )
    dense = sum(
        layer.count_params() for layer in net.model.layers if type(layer).__name__ == "Dense"
    )
    return [
        "A kernel of 3 x 3 over c channels has 9c weights and a bias, whatever the size of the "
        "picture; a dense layer has a weight for each input of each unit.",
        Table(
            ("layer", "output", "parameters", "formula", "Keras"), rows, "The layers of your net"
        ),
        f"{agreed}; {counted:,} in all. {dense / counted:.0%} of them are in dense layers."
        if counted
        else "It learns nothing.",
    ]


def _figure(digit: npt.NDArray[Any], answer: npt.NDArray[Any], row: int, column: int) -> Figure:
    from matplotlib.patches import Rectangle

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        left, middle, right = drawing.subplots(1, 3, width_ratios=(28, 14, 26))
        figures.picture(left, digit, f"digit, {' x '.join(map(str, digit.shape))}")
        left.add_patch(
            Rectangle((column - 0.5, row - 0.5), 3, 3, fill=False, color=ink.second, linewidth=2.5)
        )
        figures.picture(middle, VERTICAL_EDGE, "kernel, 3 x 3", cmap="RdBu_r", vmin=-2, vmax=2)
        for y, x in np.ndindex(3, 3):
            middle.text(x, y, f"{VERTICAL_EDGE[y, x]:g}", ha="center", va="center", color="black")
        largest = np.abs(answer).max()
        title = f"output, {' x '.join(map(str, answer.shape))}"
        figures.picture(right, answer, title, cmap="RdBu_r", vmin=-largest, vmax=largest)
        right.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color=ink.third, linewidth=2.5)
        )

    return figures.draw(
        "convolution",
        2.5,
        paint,
        alt="A handwritten digit with a marked window of three by three pixels, the kernel with "
        "its nine weights, and the output, red at left edges of strokes and blue at right ones.",
        caption="The window on the left gives the one marked value on the right. Red is above "
        "zero (dark to bright), blue below.",
        photographic=True,
    )
