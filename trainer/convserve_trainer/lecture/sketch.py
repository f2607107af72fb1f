"""A convnet, drawn: the two halves of the net, its code, and what dense layers do otherwise."""

import math
from typing import TYPE_CHECKING, NamedTuple

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Listing, Part, Section
from convserve_trainer.lecture import code, net
from convserve_trainer.lecture.material import Material

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure as Drawing

TOPIC = "convnet"
DRAWN = ("Conv2D", "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "Flatten", "Dense")
MOST = 12  # layers that fit


class Block(NamedTuple):
    """A layer as it is drawn.

    Attributes:
        name: what is written below it.
        shape: of its output, without the batch.
        kind: type of the layer; "input" of what comes in.
    """

    name: str
    shape: tuple[int, ...]
    kind: str


def make_section(material: Material) -> Section:
    """Returns the section."""
    model = material.net.model
    drawn = blocks(model)
    parts: list[Part] = [
        "A convnet has two halves. The first learns features: convolutions, which look for "
        "patterns, alternate with pooling, which makes what they found coarser. The second is a "
        "classifier of dense layers that weighs what was found.",
        _figure(drawn),
        "A dense layer learns global patterns: each of its units has a weight for every value that "
        "comes in, so that a stroke in another corner is another pattern to it, to be learned "
        "anew. A convolution learns local patterns, of a few pixels, and its weights are the same "
        "everywhere: what was learned at the lower right is known at the upper left. That is why "
        "a convnet does with fewer examples. And because one convolution looks at what another "
        "found, patterns are built of patterns: edges first, then strokes and corners, then parts "
        "of digits.",
        *_code(model),
    ]
    material.done(1.0, "net drawn")
    return Section(TOPIC, "A convnet, drawn", parts)


def blocks(model: "keras.Model") -> list[Block]:
    """Returns the layers that change the shape, and the picture before them; MOST at most."""
    shape = tuple(int(side) for side in model.inputs[0].shape[1:])
    found = [Block("picture", shape, "input")]
    for layer in net.layers_of_type(model, *DRAWN):
        shape = tuple(int(side) for side in layer.output.shape[1:])
        found.append(Block(_name(layer), shape, type(layer).__name__))
    if len(found) <= MOST:
        return found
    return [*found[: MOST // 2], *found[-(MOST - MOST // 2) :]]


def _name(layer: "keras.Layer") -> str:
    kind = type(layer).__name__
    if kind == "Conv2D":
        return f"conv {layer.kernel_size[0]} x {layer.kernel_size[1]}"
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        return f"{'max' if kind.startswith('Max') else 'mean'}-pool {layer.pool_size[0]}"
    return {"GlobalAveragePooling2D": "global mean", "Flatten": "flatten", "Dense": "dense"}[kind]


def _code(model: "keras.Model") -> list[Part]:
    features, classifier = code.net_code(model, True), code.net_code(model, False)
    if features is None or classifier is None:
        return ["Your net branches, or has layers of its own, so that it is not a list of layers."]
    return [
        Listing(features, "The first half of your net in Keras: it learns features."),
        Listing(
            classifier.replace("net = keras.Sequential([", "classifier = keras.Sequential(["),
            "The second half: it tells the classes apart.",
        ),
    ]


def _figure(drawn: list[Block]) -> Figure:
    from matplotlib.patches import Rectangle

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        axes = drawing.subplots()
        colours = {"Conv2D": ink.first, "Dense": ink.second, "input": ink.faint}
        x, ends = 0.0, [0.0, 0.0]
        for number, block in enumerate(drawn):
            height, sheets = _size(block)
            for sheet in range(sheets):
                corner = (x + 0.09 * sheet, -height / 2 + 0.09 * sheet)
                width = height if len(block.shape) == 3 else 0.22
                colour = colours.get(block.kind, ink.third)
                patch = Rectangle(
                    corner, width, height, facecolor=ink.paper, edgecolor=colour, linewidth=1.6
                )
                axes.add_patch(patch)
            size = "\n".join(_sides(block))
            below = -1.75 if number % 2 == 0 else -2.75
            middle = x + (width + 0.09 * (sheets - 1)) / 2
            axes.plot([middle, middle], [below + 0.05, -height / 2], color=ink.faint, linewidth=0.6)
            axes.text(middle, below, f"{block.name}\n{size}", ha="center", va="top", fontsize=9.5)
            x += width + 0.09 * (sheets - 1) + 0.5
            if len(block.shape) == 3:
                ends[0] = x - 0.5
            ends[1] = x - 0.5
        for left, right, what in (
            (0.0, ends[0], "features"),
            (ends[0] + 0.5, ends[1], "classifier"),
        ):
            if right - left > 0.1:
                axes.plot([left, right], [1.95, 1.95], color=ink.text, linewidth=1.2)
                axes.text((left + right) / 2, 2.05, what, ha="center", va="bottom")
        axes.set_xlim(-0.5, x)
        axes.set_ylim(-3.9, 2.6)
        axes.axis("off")

    blocks = "; ".join(f"{block.name} {' x '.join(map(str, block.shape))}" for block in drawn)
    return figures.draw(
        "convnet",
        3.3,
        paint,
        alt="A sketch of the net as a row of blocks with the sizes of what they put out: "
        f"{blocks}.",
        caption="Your net: rows x columns x channels of what each layer puts out. Sheets that grow "
        "smaller and more are the features, bars the classifier.",
    )


def _sides(block: Block) -> list[str]:
    if len(block.shape) == 3:
        rows, columns, channels = block.shape
        return [f"{rows} x {columns}", f"x {channels}"]
    return [f"{block.shape[0]:,}"]


def _size(block: Block) -> tuple[float, int]:
    """Returns how high a block is drawn, 0 to 3, and of how many sheets."""
    if len(block.shape) == 3:
        height = 0.35 + 0.45 * math.log2(1 + min(block.shape[:2]) / 4)
        return min(height, 2.4), max(1, min(6, round(math.log2(1 + block.shape[2]))))
    return 0.5 + 0.25 * math.log2(1 + block.shape[0] / 4), 1
