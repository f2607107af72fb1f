"""Data efficiency, measured: accuracy against the size of the training set."""

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.lecture import net, trials
from convserve_trainer.lecture.material import Material
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

TOPIC = "data"
Curves = dict[str, dict[int, list[float]]]
"""Accuracies of each seed, by net and size."""


def make_section(material: Material) -> Section:
    """Returns the section."""
    scale = material.scale
    count = len(material.digits.train_labels)
    sizes = [size for size in scale.sizes if size <= count] or [count]
    found = _trained(material, sizes)
    how = trials.described(trials.recipe(material.net))
    rows = [[f"{size:,}", *(_spread(curve[size]) for curve in found.values())] for size in sizes]
    parts: list[Part] = [
        "That a pattern is the same everywhere need not be learned by a convnet: it is built in. "
        "So it should do with fewer examples. Both nets, of as many parameters, are trained anew "
        f"on a part of the digits, {counted(scale.steps, 'step')} each ({how}) whatever the size, "
        f"so that only the data differ; {counted(scale.seeds, 'seed')}, each with digits of its "
        "own.",
        _plot(found, scale.seeds),
        Table(
            ("digits to train on", *found),
            rows,
            f"Accuracy on the {len(material.digits.test_labels):,} held-out digits, mean and "
            "standard deviation over the seeds",
        ),
        _verdict(found, sizes),
    ]
    return Section(TOPIC, "Data efficiency, measured", parts)


def _trained(material: Material, sizes: list[int]) -> Curves:
    scale, total = material.scale, 2 * len(sizes) * material.scale.seeds
    recipes = {
        "convnet": trials.recipe(material.net),
        "dense net": trials.rival(material.net),
    }
    found: Curves = {name: {size: [] for size in sizes} for name in recipes}
    done = 0.0
    costs = {"convnet": 1.6, "dense net": 0.4}  # a dense net is the faster one
    for name, recipe in recipes.items():
        start = _Start(material, trials.for_steps(recipe, scale.steps, seed=1))
        for size in sizes:
            for seed in range(1, scale.seeds + 1):
                found[name][size].append(start.accuracy(size, seed))
                done += costs[name]
                material.done(done / total, f"{name}, {size:,} digits, seed {seed}")
    return found


class _Start:
    """A compiled net that is brought back to a beginning: to compile anew takes seconds."""

    def __init__(self, material: Material, recipe: Recipe) -> None:
        self._material, self._recipe = material, recipe
        self._model = trials.build(material.net, recipe, 1)
        self._model.optimizer.build(self._model.trainable_variables)
        self._slots = [variable.numpy() for variable in self._model.optimizer.variables]

    def accuracy(self, size: int, seed: int) -> float:
        """Returns the accuracy after a training on so many digits, weights drawn from the seed."""
        digits, recipe = self._material.digits, msgspec.structs.replace(self._recipe, seed=seed)
        drawn = trials.build(self._material.net, recipe, 1)
        self._model.set_weights(drawn.get_weights())
        for variable, value in zip(self._model.optimizer.variables, self._slots, strict=True):
            variable.assign(value)
        chosen = np.random.default_rng(seed).permutation(len(digits.train_labels))[:size]
        trials.fit(self._model, digits.train_images[chosen], digits.train_labels[chosen], recipe)
        answers = net.predict(self._model, digits.test_images)
        return float((answers.argmax(axis=1) == digits.test_labels).mean())


def _spread(accuracies: list[float]) -> str:
    if len(accuracies) == 1:
        return f"{accuracies[0]:.2%}"
    return f"{np.mean(accuracies):.2%} ± {np.std(accuracies, ddof=1):.2%}"


def _verdict(found: Curves, sizes: list[int]) -> str:
    ours, theirs = (
        {size: float(np.mean(curve[size])) for size in sizes} for curve in found.values()
    )
    smallest, largest = sizes[0], sizes[-1]
    text = (
        f"With {smallest:,} digits the convnet has {ours[smallest]:.1%} right and the dense net "
        f"{theirs[smallest]:.1%}; with {largest:,}, {ours[largest]:.1%} and {theirs[largest]:.1%}."
    )
    ahead = [size for size in sizes if ours[size] > theirs[size]]
    if len(ahead) == len(sizes):
        ratio = (1 - theirs[largest]) / max(1 - ours[largest], 1e-9)
        text += (
            f" The convnet is ahead at every size; with {largest:,} digits it makes one mistake "
            f"where the dense net makes {ratio:.1f}."
        )
        saved = next((size for size in sizes if ours[size] >= theirs[largest]), largest)
        if saved < largest:
            text += (
                f" It needs no more than {saved:,} digits for what that net learns of {largest:,}."
            )
        return text
    behind = ", ".join(f"{size:,}" for size in sizes if size not in ahead)
    return f"{text} The convnet is not ahead with {behind}: the steps may be too few for it."


def _plot(found: Curves, seeds: int) -> Figure:
    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        axes = drawing.subplots()
        styles = zip(found.items(), ((ink.first, "o"), (ink.second, "s")), strict=True)
        for (name, curve), (colour, marker) in styles:
            sizes = np.array(list(curve))
            errors = np.array([[1 - each for each in values] for values in curve.values()]) * 100
            axes.plot(sizes, errors.mean(axis=1), marker + "-", color=colour, label=name)
            axes.fill_between(
                sizes, errors.min(axis=1), errors.max(axis=1), color=colour, alpha=0.2, linewidth=0
            )
        _logarithmic(axes)
        axes.set_xlabel("digits to train on")
        axes.set_ylabel("held-out digits that are wrong, %")
        axes.grid(visible=True, which="both")
        axes.legend()

    return figures.draw(
        "data",
        3.6,
        paint,
        alt="Share of wrong answers against the number of training digits, both logarithmic: both "
        "lines fall with more digits.",
        caption="Errors against the size of the training set; the band spans "
        f"{counted(seeds, 'seed')}.",
    )


def _logarithmic(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())
