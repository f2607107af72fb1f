"""The hierarchy of patterns: what excites the filters of each layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section
from convserve_trainer.lecture import ascent, geometry
from convserve_trainer.lecture.material import Material
from convserve_trainer.lecture.net import Net, weights
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure as Drawing

    from convserve_trainer.lecture.material import Pixels

TOPIC = "activations"
FILTERS, FOUND = 4, 6  # shown: filters of a layer, pictures of a filter
MADE, CROP = 6, 72  # of the photographs' net: filters of a layer, rows and columns shown
LAYERS = 4  # at most, the last of a deep net among them


def make_section(material: Material) -> Section:
    """Returns the section."""
    parts: list[Part] = [
        "Later layers answer to patterns of patterns. For each layer, what excites a filter is "
        "found in two ways: a search through held-out pictures for those with the largest answer "
        "(framed: the part that this answer can see), and gradient ascent, which starts from "
        "noise and changes the pixels, not the weights, until the filter answers loudly. A filter "
        "of the first layer sees no more than its kernel, which is shown instead: it is excited by "
        "what is bright under its red weights and dark under its blue ones.",
    ]
    layers = spread(material.net.convolutions)
    if not layers:
        parts.append("Your net has no convolution, so there is no hierarchy to show.")
    searched = material.digits.test_images[: material.scale.searched]
    labels = material.digits.test_labels[: material.scale.searched]
    fields = geometry.fields(material.net.model)
    for number, layer in enumerate(layers):
        excited = ascent.search(material.net, layer, searched)
        filters = excited.liveliest(FILTERS)
        left = _left(material.net, layer, filters, material.scale.ascents, number)
        field = fields.get(layer.name, geometry.Field(None))
        parts.append(_description(layer, excited, filters, labels))
        parts.append(_digits(layer, excited, filters, left, searched, field))
        material.done((number + 1) / (len(layers) + 2), f"{layer.name} searched")
    parts += _photographs(material)
    return Section(TOPIC, "What the layers look for", parts)


class _Left(NamedTuple):
    """What is shown of filters beside the pictures that were found.

    Attributes:
        pictures: one for each filter.
        title: above them.
        what: they are, in a sentence.
        options: of `figures.picture`.
    """

    pictures: Sequence[npt.NDArray[Any]]
    title: str
    what: str
    options: dict[str, Any]


def _left(net: Net, layer: "keras.Layer", filters: list[int], steps: int, number: int) -> _Left:
    """Returns the kernels of a first layer, and what is made for the filters of a later one."""
    if layer is net.convolutions[0]:
        kernels = weights(layer).mean(axis=2)[..., filters].transpose(2, 0, 1)
        scaled = [kernel / (np.abs(kernel).max() or 1) for kernel in kernels]
        options = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
        return _Left(
            scaled, "kernel", "the kernel (red weights are above zero, blue below)", options
        )
    made = ascent.ascend(net, layer, filters, steps, seed=number)
    pictures = [figures.stretched(each) for each in made]
    return _Left(pictures, "made", "made by gradient ascent from noise", {})


def spread(layers: "list[keras.Layer]") -> "list[keras.Layer]":
    """Returns LAYERS of the layers at most: the first, the last, and some between."""
    if len(layers) <= LAYERS:
        return layers
    return [layers[int(position)] for position in np.linspace(0, len(layers) - 1, LAYERS)]


def _description(
    layer: "keras.Layer",
    excited: ascent.Excited,
    filters: list[int],
    labels: npt.NDArray[np.integer],
) -> str:
    purity = []
    for number in range(excited.values.shape[1]):
        if excited.values[:, number].max() > 0:
            found = labels[excited.top(number, 20)]
            purity.append(np.bincount(found).max() / len(found))
    mean = float(np.mean(purity)) if purity else 0.0
    return (
        f"`{layer.name}`, {counted(excited.values.shape[1], 'filter')}, "
        + (
            f"{excited.dead} of them never excited"
            if excited.dead
            else "each excited by some digit"
        )
        + f". Of the 20 digits that excite a filter most, {mean:.0%} on average show the same "
        f"figure. Shown are the filters {', '.join(map(str, filters))}, those whose answers vary "
        "most."
    )


def _digits(
    layer: "keras.Layer",
    excited: ascent.Excited,
    filters: list[int],
    left: "_Left",
    pixels: "Pixels",
    field: geometry.Field,
) -> Figure:
    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        axes = np.atleast_2d(drawing.subplots(len(filters), FOUND + 1))
        for row, number in enumerate(filters):
            figures.picture(axes[row, 0], left.pictures[row], **left.options)
            axes[row, 0].set_ylabel(f"filter {number}", fontsize=figures.SMALL)
            for column, found in enumerate(excited.top(number, FOUND)):
                figures.picture(axes[row, column + 1], pixels[found])
                if field.size is not None and field.size < min(pixels.shape[1:3]):
                    square = field.square(*excited.positions[found, number])
                    figures.frame(axes[row, column + 1], *square)
            for empty in range(len(pixels), FOUND):
                axes[row, empty + 1].axis("off")
        axes[0, 0].set_title(left.title, fontsize=figures.SMALL)
        axes[0, 1].set_title("found", fontsize=figures.SMALL)

    return figures.draw(
        f"activations-{layer.name}",
        0.92 * len(filters) + 0.3,
        paint,
        alt=f"For {counted(len(filters), 'filter')} of {layer.name}: {left.what}, and {FOUND} "
        "held-out digits that excite the filter most, each with a frame around the part that the "
        "filter sees.",
        caption=f"{layer.name}: left, {left.what}; right, the held-out digits with the largest "
        f"answers{_sees(field)}.",
        photographic=True,
    )


def _sees(field: geometry.Field) -> str:
    if field.size is None:
        return ""
    return f", each seeing a frame of {field.size} x {field.size} pixels"


def _photographs(material: Material) -> list[Part]:
    if material.photo_net is None:
        return ["The same for photographs: name their net with `--photos BUNDLE`."]
    layers = spread(material.photo_net.convolutions)
    if not layers:
        return ["Your net for photographs has no convolution."]
    rows: list[tuple[str, npt.NDArray[Any]]] = []
    for number, layer in enumerate(layers):
        filters = _lively(material, material.photo_net, layer)
        if number == 0:  # as for digits: what is made for it shows no more than its kernels
            kernels = weights(layer)[..., filters].transpose(3, 0, 1, 2)
            rows.append((layer.name, np.stack([_coloured(each) for each in kernels])))
            continue
        made = ascent.ascend(
            material.photo_net, layer, filters, material.scale.ascents, seed=number
        )
        rows.append((layer.name, np.stack([_visible(each) for each in made])))
    return [
        "On photographs the hierarchy goes further: look for plain colours and edges in the first "
        "layer, for textures and mixtures of them in the later ones. How far "
        "it gets depends on how long the net was trained; yours has "
        f"{material.photo_net.manifest.metrics['accuracy']:.1%} of its held-out pictures right.",
        _made(rows),
    ]


def _lively(material: Material, net: Net, layer: "keras.Layer") -> list[int]:
    if material.photographs is None:
        return list(range(min(MADE, layer.output.shape[-1])))
    return ascent.search(net, layer, material.photographs.pixels[:100]).liveliest(MADE)


def _made(rows: list[tuple[str, npt.NDArray[Any]]]) -> Figure:
    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        axes = drawing.subplots(len(rows), MADE, squeeze=False)
        for axis in axes.flat:
            figures.bare(axis)
        for number, (name, pictures) in enumerate(rows):
            for position, pixels in enumerate(pictures):
                figures.picture(axes[number, position], pixels)
            axes[number, 0].set_ylabel(name, fontsize=figures.SMALL)

    return figures.draw(
        "activations-photographs",
        1.0 * len(rows) + 0.1,
        paint,
        alt="Kernels of the first layer of the net for photographs, and pictures made by gradient "
        "ascent for filters of later ones, a row for each layer.",
        caption="The net for photographs: kernels of the first layer in the colours that they "
        "weight, then for each of the later layers the middle of pictures made from noise; six "
        "filters each.",
        photographic=True,
    )


def _coloured(kernel: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns a kernel [rows, columns, C] as colours, 0 to 1; grey is 0, bright above it."""
    colours: npt.NDArray[np.float64] = 0.5 + kernel / (2 * np.abs(kernel).max() or 1)
    return colours


def _visible(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns the middle of a picture, CROP or less, its contrast brought to what can be seen.

    Away from the border, where padding or its absence leaves marks of its own.
    """
    top, left = (max(0, (side - CROP) // 2) for side in pixels.shape[:2])
    middle = pixels[top : top + CROP, left : left + CROP]
    spread_out = (middle - middle.mean()) / (middle.std() + 1e-9) * 0.25 + 0.5
    visible: npt.NDArray[np.float64] = np.clip(spread_out, 0, 1)
    return visible
