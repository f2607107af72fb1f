"""Kernels that people thought of, and those that the net has learned."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section
from convserve_trainer.lecture import convolution, net
from convserve_trainer.lecture.material import Material
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure as Drawing

    from convserve_trainer.lecture.material import Pixels

TOPIC = "kernels"
BLUR = np.full((3, 3), 1 / 9)
EDGE = np.array([[-1.0, 1.0]])
BLURS = 6  # times that a photograph is blurred: once cannot be seen at its size
SHOWN = 32  # filters at most
ALIKE = 0.8  # a kernel with this cosine to a pattern, or more, is called like it

#: What a learned kernel of 3 x 3 may look like, up to sign: a blur, or edges of a direction.
PATTERNS = {
    "blurring": np.ones((3, 3)),
    "vertical": np.array([[-1, 0, 1]] * 3),
    "horizontal": np.array([[-1, 0, 1]] * 3).T,
    "falling": np.array([[0, 1, 1], [-1, 0, 1], [-1, -1, 0]]),
    "rising": np.array([[1, 1, 0], [1, 0, -1], [0, -1, -1]]),
}


def make_section(material: Material) -> Section:
    """Returns the section."""
    digit = material.digit(5)
    parts: list[Part] = [
        "Before anything is learned: nine weights of 1/9 replace each pixel by the mean of its "
        "neighbourhood, a blur. The two weights `(-1, 1)` subtract each pixel from its right "
        "neighbour, so that only vertical edges are left.",
        _by_hand("kernels-digit", digit[..., 0], 1, "a handwritten five"),
    ]
    if material.photographs is None:
        parts.append(
            "The same on a photograph: name a folder of photographs with `--photo-data DIR`."
        )
    else:
        grey = material.photographs.large.mean(axis=2)
        parts.append(_by_hand("kernels-photograph", grey, BLURS, "a photograph"))
    material.done(0.5, "kernels by hand")
    return Section(TOPIC, "Kernels, drawn and learned", [*parts, *_learned(material, digit)])


def nearest(kernel: npt.NDArray[Any]) -> tuple[str, float]:
    """Returns which of PATTERNS a kernel [3, 3] is most like, and the cosine, 0 to 1."""
    length = np.linalg.norm(kernel)
    alike = {
        name: abs(float((kernel * pattern).sum())) / float(length * np.linalg.norm(pattern))
        for name, pattern in PATTERNS.items()
        if length > 0
    }
    name = max(alike, key=alike.__getitem__, default="blurring")
    return name, alike.get(name, 0.0)


def _by_hand(name: str, pixels: npt.NDArray[Any], blurs: int, what: str) -> Figure:
    blurred = pixels.astype(np.float64)
    for _ in range(blurs):
        blurred = convolution.convolved(blurred, BLUR)
    edges = convolution.convolved(pixels, EDGE)

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        first, second, third = drawing.subplots(1, 3)
        figures.picture(first, pixels, what, vmin=0, vmax=255)
        times = "" if blurs == 1 else f", {blurs} times"
        figures.picture(second, blurred, f"blurred by 1/9{times}", vmin=0, vmax=255)
        largest = np.quantile(np.abs(edges), 0.995) or 1.0  # a few pixels would pale all others
        figures.picture(
            third, edges, "edges by (-1, 1)", cmap="RdBu_r", vmin=-largest, vmax=largest
        )

    height, width = pixels.shape
    return figures.draw(
        name,
        1.9 * height / width + 0.25,
        paint,
        alt=f"Three pictures: {what}, the same blurred, and its vertical edges in red and blue.",
        caption=f"{what[0].upper()}{what[1:]} under two kernels. Red: brighter to the right; "
        "blue: darker.",
        photographic=True,
    )


def _learned(material: Material, digit: "Pixels") -> list[Part]:
    if not material.net.convolutions:
        return ["Your net has no convolution, so there are no learned kernels to look at."]
    layer = material.net.convolutions[0]
    answers = material.net.maps(layer.name, digit[np.newaxis])[0]
    kernels = net.weights(layer).mean(axis=2).transpose(2, 0, 1)
    silent = int((answers.reshape(-1, answers.shape[-1]).max(axis=0) <= 0).sum())
    text = (
        f"The first convolution of your net, {layer.name}, has learned "
        f"{counted(len(kernels), 'kernel')} from random numbers, because they lowered the loss. On "
        f"this digit {counted(len(kernels) - silent, 'of them answers', 'of them answer')}"
        + (f" and {counted(silent, 'stays silent', 'stay silent')}." if silent else ".")
    )
    parts: list[Part] = [text + _likeness(kernels)]
    return [*parts, _figure(layer, kernels[:SHOWN], answers[..., :SHOWN])]


def _likeness(kernels: npt.NDArray[Any]) -> str:
    if kernels.shape[1:] != (3, 3):
        return ""
    found = [nearest(kernel) for kernel in kernels]
    counts = {name: sum(like > ALIKE for near, like in found if near == name) for name in PATTERNS}
    clear = [f"{count} {name}" for name, count in counts.items() if count]
    if not clear:
        return f" None of them is much like a kernel of a textbook (cosine above {ALIKE})."
    alike = sum(counts.values())
    text = (
        f" {counted(alike, 'is', 'are')} much like a kernel of a textbook, whatever the sign "
        f"(cosine above {ALIKE}): {', '.join(clear)}."
    )
    others = len(kernels) - alike
    return text + (
        f" {counted(others, 'other is a mixture', 'others are mixtures')}." if others else ""
    )


def _figure(layer: "keras.Layer", kernels: npt.NDArray[Any], answers: npt.NDArray[Any]) -> Figure:
    across = min(8, len(kernels))

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        upper, lower = drawing.subplots(2, 1, height_ratios=(1, 1.02))
        scaled = [kernel / (np.abs(kernel).max() or 1) for kernel in kernels]
        enlarged = [np.kron(kernel, np.ones((8, 8))) for kernel in scaled]
        sheet = figures.tiles(enlarged, across, gap=4)
        figures.picture(upper, sheet, f"kernels of {layer.name}", cmap="RdBu_r", vmin=-1, vmax=1)
        shown = [answers[..., number] / (answers.max() or 1) for number in range(len(kernels))]
        sheet = figures.tiles(shown, across, gap=4)
        figures.picture(lower, sheet, "what each makes of the digit", cmap="magma", vmin=0, vmax=1)

    rows = -(-len(kernels) // across)
    return figures.draw(
        "kernels-learned",
        1.5 * rows + 0.5,
        paint,
        alt=f"{len(kernels)} small learned kernels in red and blue, and below in the same order "
        "what each makes of the digit: strokes and edges in different directions.",
        caption="In the same order: kernels (red weights are above zero, blue below, each on its "
        "own scale) and answers after the activation (bright is strong, one scale for all).",
        photographic=True,
    )
