"""Pooling: what it keeps, what it saves, and how far each layer sees."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.lecture import geometry, net
from convserve_trainer.lecture.material import Material
from convserve_trainer.nets import keras_backend
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure as Drawing

TOPIC = "pooling"
POOLINGS = ("MaxPooling2D", "AveragePooling2D")
CHANNELS = 4
MAPS = 4  # of deep nets the last ones
LOOKED_AT = 200  # digits over which gradients are averaged


def make_section(material: Material) -> Section:
    """Returns the section."""
    model = material.net.model
    pooled = net.layers_of_type(model, *POOLINGS)
    parts: list[Part] = [
        "Pooling is like a convolution in that it slides a window over the picture, and unlike it "
        "in two ways: nothing about it is learned, the largest value of each window is a "
        "hard-coded max, and the window, mostly 2 x 2, moves by its own width.",
        "Max-pooling by 2 keeps the largest of each four answers: that a pattern is there, no "
        "longer exactly where. A quarter of the values is left, and whatever comes next sees "
        "twice as far with the same weights.",
    ]
    if pooled:
        parts += [*_kept(material, pooled[0]), *_without(model, len(pooled))]
    else:
        parts.append("Your net has no pooling layer, so there is nothing to compare.")
    material.done(0.4, "net without pooling counted")
    found = geometry.fields(model)
    rows = [[layer.name, *_field(found.get(layer.name))] for layer in model.layers]
    parts += [
        "The receptive field is the part of the picture that one value depends on. Each window of "
        "k values adds (k - 1) times the distance of its neighbours in pixels, which every stride "
        "multiplies.",
        Table(("layer", "field", "distance"), rows, "Receptive fields, computed, in pixels"),
        *_measured(material, found),
    ]
    return Section(TOPIC, "Pooling and receptive fields", parts)


def without_pooling(model: "keras.Model") -> "keras.Model":
    """Returns a net like this with new weights, in which nothing is pooled.

    Raises:
        ValueError: its shapes do not fit together any more.
    """
    loaded = keras_backend.load()

    def copied(layer: "keras.Layer") -> "keras.Layer":
        if type(layer).__name__ in POOLINGS:
            return loaded.layers.Identity(name=layer.name)
        return type(layer).from_config(layer.get_config())

    return loaded.models.clone_model(model, clone_function=copied)


def gradients(material: Material, layer: "keras.Layer") -> npt.NDArray[np.float64]:
    """Returns how much the middle value of a layer depends on each pixel, float64 [H, W].

    The mean over held-out digits of the gradient's absolute value, summed over the channels.

    Source: W. Luo and others, "Understanding the Effective Receptive Field in Deep Convolutional
    Neural Networks", NeurIPS 2016.
    """
    tensorflow = keras_backend.tensorflow()
    part = material.net.upto(layer.name, floats=True)
    pixels = tensorflow.constant(material.digits.test_images[:LOOKED_AT].astype(np.float32))
    with tensorflow.GradientTape() as tape:
        tape.watch(pixels)
        values = part(pixels, training=False)
        middle = values[:, values.shape[1] // 2, values.shape[2] // 2, :]
    slopes = np.abs(tape.gradient(middle, pixels).numpy())
    mean: npt.NDArray[np.float64] = slopes.astype(np.float64).mean(axis=0).sum(axis=-1)
    return mean


def extent(values: npt.NDArray[np.float64]) -> int:
    """Returns the larger side of the smallest rectangle with all that is not zero, [H, W]."""
    rows, columns = np.nonzero(values)
    if not len(rows):
        return 0
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


def _field(found: geometry.Field | None) -> tuple[str, str]:
    if found is None:
        return "not known", "-"
    if found.size is None:
        return "whole picture", "-"
    return f"{found.size} x {found.size}", str(found.jump)


def _kept(material: Material, layer: "keras.Layer") -> list[Part]:
    names = [geometry.inputs(layer)[0], layer.name]
    digit = material.digit(3)
    before, after = (
        np.asarray(each)[0] for each in material.net.upto(*names)(digit[np.newaxis], training=False)
    )
    strongest = np.argsort(-before.sum(axis=(0, 1)))[:CHANNELS]
    share = after.size / before.size
    return [
        f"In your net {layer.name} keeps {after.size:,} of {before.size:,} values ({share:.0%}); "
        f"on this digit their mean rises from {before.mean():.3f} to {after.mean():.3f}, because "
        "the largest of each window survives."
        if type(layer).__name__ == "MaxPooling2D"
        else f"In your net {layer.name} keeps {after.size:,} of {before.size:,} values "
        f"({share:.0%}).",
        _before_after(before[..., strongest], after[..., strongest], layer.name),
    ]


def _before_after(before: npt.NDArray[Any], after: npt.NDArray[Any], name: str) -> Figure:
    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        for row, (values, what) in enumerate(((before, "before"), (after, "after"))):
            size = " x ".join(map(str, values.shape[:2]))
            for column in range(values.shape[-1]):
                axes = drawing.add_subplot(2, values.shape[-1], row * values.shape[-1] + column + 1)
                title = f"{what}, {size}" if column == 0 else ""
                figures.picture(axes, values[..., column], title, cmap="magma")

    return figures.draw(
        "pooling-before-after",
        3.4,
        paint,
        alt="Four answers of the first convolution to a digit, and below the same after pooling: "
        "half as wide and high, the strokes as bright.",
        caption=f"The {before.shape[-1]} strongest channels before and after {name}.",
        photographic=True,
    )


def _without(model: "keras.Model", count: int) -> list[Part]:
    try:
        other = without_pooling(model)
    except ValueError:
        return ["Without its pooling layers the shapes of your net do not fit together."]
    ours, theirs = model.count_params(), other.count_params()
    text = f"Without its {counted(count, 'pooling layer')} your net has {theirs:,} coefficients "
    text += f"instead of {ours:,}"
    if theirs == ours:
        return [text + ": as many, because nothing in it depends on the size of the last map."]
    fields = geometry.fields(other)
    last = net.layers_of_type(other, "Conv2D")
    seen = fields.get(last[-1].name) if last else None
    dense = sum(layer.count_params() for layer in net.layers_of_type(other, "Dense"))
    text += f", {theirs / ours:.1f} times as many, {dense / theirs:.0%} of them in dense layers"
    if seen is not None and seen.size is not None:
        text += f"; and its last convolution sees only {seen.size} x {seen.size} pixels"
    return [text + "."]


def _measured(material: Material, found: dict[str, geometry.Field]) -> list[Part]:
    layers = [
        layer
        for layer in material.net.convolutions
        if layer.name in found and found[layer.name].size is not None
    ]
    if not layers:
        return ["No convolution of your net has a receptive field that can be computed here."]
    slopes = [gradients(material, layer) for layer in layers]
    material.done(0.9, "receptive fields measured")
    pairs = [
        (layer.name, found[layer.name].size, extent(s))
        for layer, s in zip(layers, slopes, strict=True)
    ]
    agree = [name for name, computed, seen in pairs if computed == seen]
    text = "; ".join(f"{name} {computed}, measured {seen}" for name, computed, seen in pairs)
    return [
        "Measured, by the gradient of the middle value over "
        f"{min(LOOKED_AT, len(material.digits.test_images))} held-out digits: {text}. "
        + (
            f"The two agree on every layer. {_middle(layers[-1].name, slopes[-1])}"
            if len(agree) == len(pairs)
            else "Where they differ the field reaches over the border, or no digit woke its rim."
        ),
        _maps(layers, slopes, found),
    ]


def _middle(name: str, slopes: npt.NDArray[np.float64]) -> str:
    """Returns how the middle of a field, half as wide and high, weighs against all around it."""
    rows, columns = np.nonzero(slopes)
    field = slopes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    top, left = field.shape[0] // 4, field.shape[1] // 4
    middle = field[top : field.shape[0] - top, left : field.shape[1] - left]
    around = (field.sum() - middle.sum()) / max(1, field.size - middle.size)
    if not top or not around:
        return ""
    return (
        f"A pixel in the middle of {name}'s field weighs {middle.mean() / around:.1f} times as "
        "much as one around it: the field that counts is smaller than the computed one."
        if middle.mean() > around
        else f"In {name}'s field the middle weighs no more than the rest."
    )


def _maps(
    layers: "list[keras.Layer]",
    slopes: list[npt.NDArray[np.float64]],
    fields: dict[str, geometry.Field],
) -> Figure:
    shown = list(zip(layers, slopes, strict=True))[-MAPS:]

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        for position, (layer, values) in enumerate(shown):
            axes = drawing.add_subplot(1, len(shown), position + 1)
            figures.picture(axes, np.sqrt(figures.stretched(values)), layer.name, cmap="magma")
            row, column = (size // 2 for size in layer.output.shape[1:3])
            figures.frame(axes, *fields[layer.name].square(row, column))

    return figures.draw(
        "receptive-fields",
        {1: 4.0, 2: 3.2, 3: 2.25}.get(len(shown), 1.75),
        paint,
        alt="For each convolution a map of how much its middle value depends on each pixel: "
        "bright squares that grow from layer to layer, each inside the computed square.",
        caption="How much one value in the middle of each convolution depends on each pixel "
        "(bright: much; square root of the mean gradient). The square is the computed field.",
        photographic=True,
    )
