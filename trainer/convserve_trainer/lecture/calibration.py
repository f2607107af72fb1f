"""Calibration: whether 90 % sure means right in nine of ten, and a temperature that mends it."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets import splits
from convserve_trainer.evaluation import temperature
from convserve_trainer.evaluation.score import score
from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.lecture import net, trials
from convserve_trainer.lecture.material import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

TOPIC = "calibration"
Answers = npt.NDArray[np.floating]


def make_section(material: Material) -> Section:
    """Returns the section."""
    digits, count = material.digits, splits.calibration_count(len(material.digits.train_labels))
    right = digits.test_labels
    yours = material.net.answers(digits.test_images)
    seen = material.net.answers(digits.train_images[:count])
    wrong_way = temperature.fit(seen, digits.train_labels[:count])
    material.done(0.05, "held-out digits evaluated")
    copy, fitted = _without(material, count)
    steps: list[tuple[str, Answers]] = [
        ("yours, as it is", yours),
        (f"yours, T = {wrong_way:.2f} (wrong)", temperature.apply_temperature(yours, wrong_way)),
        ("copy, as it is", copy),
        (f"copy, T = {fitted:.2f}", temperature.apply_temperature(copy, fitted)),
    ]
    parts: list[Part] = [
        "A probability is calibrated if, of all answers given with 90 %, nine in ten are right. "
        "The expected calibration error (ECE) is the mean gap of the two over 15 bins of "
        f"confidence. Your net's is {temperature.calibration_error(yours, right):.2%}; it is "
        f"{yours.max(axis=1).mean():.2%} sure on average and {_accuracy(yours, right):.2%} right, "
        f"so {_tendency(yours, right)}." + _published(material),
        "Temperature scaling divides the numbers before the softmax by one T, which changes no "
        "answer, only how sure it is. T must not be fitted on the pictures that measure it, nor on "
        f"those that the net was trained on: of {count:,} of these your net has "
        f"{_accuracy(seen, digits.train_labels[:count]):.2%} right, so that they ask for "
        f"T = {wrong_way:.2f}.",
        f"Hence a copy of your net is trained anew in the same way without the last {count:,} "
        f"training digits ({trials.described(trials.recipe(material.net))}, {_epochs(material)} "
        f"epochs), and T is fitted on these: {fitted:.2f}. All below is measured on the "
        "held-out digits, which neither training nor T has seen.",
        Table(
            ("net", "right", "confidence", "loss, nats", "ECE"),
            [[name, *_row(answers, right)] for name, answers in steps],
            f"Calibration on {len(right):,} held-out digits",
        ),
        _verdict(copy, temperature.apply_temperature(copy, fitted), right),
        _diagram(steps[2][1], steps[3][1], right, fitted),
    ]
    return Section(TOPIC, "Calibration", parts)


def _epochs(material: Material) -> int:
    return material.scale.epochs or max(1, material.net.manifest.training.epochs)


def _without(material: Material, count: int) -> tuple[Answers, float]:
    """Returns a copy's answers to the held-out digits, and its temperature.

    The copy is trained without the last `count` training digits, on which T is fitted.
    """
    digits, kept = material.digits, len(material.digits.train_labels) - count
    like = trials.recipe(material.net)
    steps = trials.steps(like, kept, _epochs(material))
    recipe = trials.for_steps(like, steps, seed=like.seed)
    copy = trials.build(material.net, recipe, kept)
    trials.fit(
        copy,
        digits.train_images[:kept],
        digits.train_labels[:kept],
        recipe,
        on_steps=lambda done: material.done(0.05 + 0.9 * done / steps, "copy in training"),
    )
    left_out, held_out = (
        net.columns(net.predict(copy, pixels))
        for pixels in (digits.train_images[kept:], digits.test_images)
    )
    return held_out, temperature.fit(left_out, digits.train_labels[kept:])


def _accuracy(answers: Answers, right: npt.NDArray[np.integer]) -> float:
    return float((answers.argmax(axis=1) == right).mean())


def _published(material: Material) -> str:
    fitted = material.net.manifest.training.temperature
    if not fitted:
        return " `convserve-train fit --calibrate` publishes a net with the remedy that follows."
    return f" It was published with `--calibrate`, at T = {fitted:.2f}; the copy below is not."


def _tendency(answers: Answers, right: npt.NDArray[np.integer]) -> str:
    gap = float(answers.max(axis=1).mean()) - _accuracy(answers, right)
    if abs(gap) < 0.0005:
        return "on average it is neither too sure nor too modest"
    return f"it is {abs(gap):.2%} too {'sure' if gap > 0 else 'modest'}"


def _row(answers: Answers, right: npt.NDArray[np.integer]) -> list[str]:
    return [
        f"{_accuracy(answers, right):.2%}",
        f"{answers.max(axis=1).mean():.2%}",
        f"{score(answers.astype(np.float32), right).loss:.4f}",
        f"{temperature.calibration_error(answers, right):.2%}",
    ]


def _verdict(before: Answers, after: Answers, right: npt.NDArray[np.integer]) -> str:
    errors = [temperature.calibration_error(answers, right) for answers in (before, after)]
    losses = [score(answers.astype(np.float32), right).loss for answers in (before, after)]
    lower = "lowers" if errors[1] < errors[0] else "does not lower"
    too = "and" if (losses[1] < losses[0]) == (errors[1] < errors[0]) else "but"
    loss = "lowers" if losses[1] < losses[0] else "does not lower"
    return (
        f"T {lower} the ECE ({errors[0]:.2%} before, {errors[1]:.2%} after) {too} {loss} the loss "
        f"({losses[0]:.4f}, {losses[1]:.4f})." + _certain(before)
    )


def _certain(answers: Answers) -> str:
    share = float((answers.max(axis=1) > 0.99).mean())
    if share < 0.8:
        return ""
    return (
        f" {share:.0%} of the copy's answers are more than 99 % sure, so that the ECE hangs on few "
        "digits; the loss is the steadier judge."
    )


def _diagram(
    before: Answers, after: Answers, right: npt.NDArray[np.integer], fitted: float
) -> Figure:
    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        panels = drawing.subplots(1, 2, sharey=True)
        titles = ("as trained", f"T = {fitted:.2f}")
        for axes, answers, title in zip(panels, (before, after), titles, strict=True):
            filled = [each for each in temperature.bins(answers, right) if each.count]
            sure = np.array([each.confidence for each in filled])
            correct = np.array([each.accuracy for each in filled])
            counts = np.array([each.count for each in filled])
            noise = np.sqrt(sure * (1 - sure) / counts)
            axes.plot([0, 1], [0, 1], "--", color=ink.faint, linewidth=1.2)
            axes.errorbar(sure, correct, noise, fmt="none", ecolor=ink.faint, elinewidth=1.2)
            axes.scatter(sure, correct, 14 + 22 * np.log10(counts), color=ink.first, zorder=3)
            axes.set_title(f"{title}: ECE {temperature.calibration_error(answers, right):.2%}")
            axes.set_xlabel("confidence")
            axes.set_xlim(0.15, 1.04)
            axes.set_ylim(-0.04, 1.06)
            axes.grid(visible=True)
        panels[0].set_ylabel("share that is right")

    return figures.draw(
        "calibration",
        3.3,
        paint,
        alt="Two reliability diagrams, before and after temperature scaling: points of "
        "confidence and accuracy around the diagonal; the largest sits at the top right.",
        caption="Reliability of the copy: confidence and share that is right, by bins. On the "
        "dashed line both agree; a larger point holds more answers (logarithmically), a bar is one "
        "standard error.",
    )
