"""Translation invariance, measured: accuracy of shifted digits, of a convnet and a dense net."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.lecture import net, trials
from convserve_trainer.lecture.material import Material
from convserve_trainer.recipes.augmentation import Augmentation
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure as Drawing

    from convserve_trainer.lecture.material import Pixels

TOPIC = "shift"
LARGEST = 8
SHOWN = (0, 1, 2, 4, 6, 8)
AXES = {"left and right": 2, "up and down": 1}


def shifted(pixels: "Pixels", by: int, axis: int) -> "Pixels":
    """Returns pictures moved by so many pixels, black where nothing was; what leaves is lost.

    Args:
        pixels: uint8 [N, H, W, C].
        by: to the right or down; below 0 to the left or up.
        axis: 1 for up and down, 2 for left and right.
    """
    moved = np.zeros_like(pixels)
    size = pixels.shape[axis]
    into = [slice(None)] * pixels.ndim
    out = list(into)
    into[axis] = slice(max(by, 0), size + min(by, 0))
    out[axis] = slice(max(-by, 0), size + min(-by, 0))
    moved[tuple(into)] = pixels[tuple(out)]
    return moved


def make_section(material: Material) -> Section:
    """Returns the section."""
    rival = _rival(material)
    parameters = trials.trainable(material.net.model), trials.trainable(rival)
    pixels = material.digits.test_images[: material.scale.shifted]
    labels = material.digits.test_labels[: material.scale.shifted]
    found = _accuracies(material, rival, pixels, labels)
    means = {by: _mean(found, by) for by in SHOWN}
    recipe = trials.recipe(material.net)
    parts: list[Part] = [
        "A convnet finds a pattern wherever it is; a dense net has weights for every position and "
        "must learn the pattern in each. So move the held-out digits, which are "
        "centred, and count.",
        f"Your convnet has {parameters[0]:,} parameters; the dense net beside it {parameters[1]:,} "
        f"({parameters[1] / parameters[0] - 1:+.1%}), trained on the same pictures by the same "
        f"recipe ({trials.described(recipe)}, {counted(_epochs(material), 'epoch')})."
        + (
            " No picture is moved in training."
            if recipe.augmentation == Augmentation()
            else " Its augmentation changes pictures in training, so that both nets saw such ones."
        ),
        _plot(found),
        Table(
            ("shift in pixels", "convnet", "dense net"),
            [[str(by), f"{ours:.1%}", f"{theirs:.1%}"] for by, (ours, theirs) in means.items()],
            f"Accuracy on {len(labels):,} held-out digits, mean of the four directions",
        ),
        _verdict(means) + _why(material.net),
        _equivariance(material, pixels[:50]),
    ]
    return Section(TOPIC, "Translation invariance, measured", parts)


def _mean(found: dict[str, dict[str, list[float]]], by: int) -> tuple[float, ...]:
    """Returns each net's accuracy at a shift, the mean of the four directions."""
    positions = (LARGEST - by, LARGEST + by)
    return tuple(
        float(np.mean([each[axis][position] for axis in AXES for position in positions]))
        for each in found.values()
    )


def _epochs(material: Material) -> int:
    return material.scale.epochs or max(1, material.net.manifest.training.epochs)


def _rival(material: Material) -> "keras.Model":
    count = len(material.digits.train_labels)
    like = trials.rival(material.net)
    steps = trials.steps(like, count, _epochs(material))
    recipe = trials.for_steps(like, steps, seed=1)
    rival = trials.build(material.net, recipe, count)
    trials.fit(
        rival,
        material.digits.train_images,
        material.digits.train_labels,
        recipe,
        on_steps=lambda done: material.done(0.5 * done / steps, "dense net in training"),
    )
    return rival


def _accuracies(
    material: Material, rival: "keras.Model", pixels: "Pixels", labels: npt.NDArray[np.integer]
) -> dict[str, dict[str, list[float]]]:
    """Returns the accuracies from -LARGEST to LARGEST, by net and axis."""
    found: dict[str, dict[str, list[float]]] = {"convnet": {}, "dense net": {}}
    for turn, (name, axis) in enumerate(AXES.items()):
        for model in found.values():
            model[name] = []
        for by in range(-LARGEST, LARGEST + 1):
            moved = shifted(pixels, by, axis)
            answers = {
                "convnet": net.predict(material.net.model, moved),
                "dense net": net.predict(rival, moved),
            }
            for which, rows in answers.items():
                found[which][name].append(float((rows.argmax(axis=1) == labels).mean()))
        material.done(0.5 + 0.25 * (turn + 1), f"digits shifted {name}")
    return found


def _verdict(means: dict[int, tuple[float, ...]]) -> str:
    four, (ours, theirs) = 4, means[4]
    text = f"At {four} pixels the convnet keeps {ours:.0%}, the dense net {theirs:.0%}. "
    if ours > theirs + 0.02:
        text += "The convnet copes better with a shift, but it is not invariant: "
    else:
        text += "Here the convnet copes no better with a shift, and it is not invariant either: "
    return text + (
        f"it falls from {means[0][0]:.1%} to {means[LARGEST][0]:.1%} at {LARGEST} pixels, where "
        "some digits lose a part, too."
    )


def _why(convnet: net.Net) -> str:
    if not net.layers_of_type(convnet.model, "Flatten"):
        return ""
    return (
        " Its convolutions do not mind where a digit is, but the dense layer behind the flattened "
        "last map has a weight for each position of it."
    )


def _equivariance(material: Material, pixels: "Pixels") -> str:
    """Returns what a shift of the picture does to the first convolution's answers."""
    if not material.net.convolutions:
        return "Your net has no convolution of which the answers could move along."
    layer = material.net.convolutions[0]
    if tuple(layer.strides) != (1, 1) or layer.output.shape[2] <= 2 * LARGEST:
        return f"{layer.name} has strides, or a small map: its answers cannot follow every shift."
    margin = LARGEST // 2
    still = material.net.maps(layer.name, pixels)
    moved = material.net.maps(layer.name, shifted(pixels, 2, axis=2))
    inner = slice(margin, -margin)
    apart = np.abs(moved[:, inner, margin + 2 : -margin] - still[:, inner, margin : -margin - 2])
    change = f"change by {apart.max():.1e} at most" if apart.max() else "do not change at all"
    return (
        "What a convolution promises is equivariance, and it keeps it: move the digits by 2 pixels "
        f"and the answers of {layer.name} move by 2 pixels and, away from the border, {change}."
    )


def _plot(found: dict[str, dict[str, list[float]]]) -> Figure:
    shifts = np.arange(-LARGEST, LARGEST + 1)

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        panels = drawing.subplots(1, 2, sharey=True)
        for axes, name in zip(panels, AXES, strict=True):
            ours, theirs = (np.array(each[name]) * 100 for each in found.values())
            axes.plot(shifts, ours, "o-", color=ink.first, markersize=4, label="convnet")
            axes.plot(shifts, theirs, "s-", color=ink.second, markersize=4, label="dense net")
            axes.set_title(name)
            axes.set_xlabel("shift in pixels")
            axes.set_xticks(range(-LARGEST, LARGEST + 1, 4))
            axes.set_ylim(0, 102)
            axes.grid(visible=True)
        panels[0].set_ylabel("accuracy, %")
        lines, names = panels[0].get_legend_handles_labels()
        drawing.legend(lines, names, loc="outside upper center", ncols=2)

    return figures.draw(
        "shift",
        3.2,
        paint,
        alt="Two line plots of accuracy against the shift of the digits, horizontally and "
        "vertically: both nets are best at 0 and fall to both sides, the dense net's line beside "
        "the convnet's.",
        caption="Accuracy against the shift of the held-out digits: left, to the left (below 0) "
        "and right; right, up (below 0) and down.",
    )
