"""Where the net errs: confusions, confident mistakes, and what it looked at."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_trainer.html import figures
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.lecture import grad_cam
from convserve_trainer.lecture.material import Material
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from convserve_trainer.lecture.material import Pixels

TOPIC = "errors"
WORST, ACROSS = 12, 4
CLASSES = 4  # of photographs, of each of which one is looked at that is right and one that is not


def make_section(material: Material) -> Section:
    """Returns the section."""
    digits, labels = material.digits, material.net.manifest.labels
    answers = material.net.answers(digits.test_images)
    right = digits.test_labels
    matrix = confusion(answers.argmax(axis=1), right, len(labels))
    wrong = int(matrix.sum() - np.trace(matrix))
    material.done(0.5, "held-out digits evaluated")
    parts: list[Part] = [
        f"Your net has {len(right) - wrong:,} of {len(right):,} held-out digits right, {wrong:,} "
        "wrong. Which it takes for which tells more than the number: rows are what a digit is, "
        "columns what the net says.",
        _matrix(matrix, labels),
    ]
    if wrong:
        worst = confident_mistakes(answers, right)
        sure = int((answers.max(axis=1)[worst] > 0.9).sum())
        parts += [
            _commonest(matrix, labels),
            f"Its most confident mistakes follow; of {counted(wrong, 'mistake')} it was sure of "
            f"more than 90 % in {sure:,}. Look before you blame it: some labels of MNIST are "
            "doubtful to people as well.",
            _pictures(digits.test_images, answers, right, worst[:WORST], labels),
        ]
    return Section(TOPIC, "Where it errs", [*parts, *_photographs(material)])


def confusion(
    answers: npt.NDArray[np.integer], right: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Returns how many pictures of each class (rows) were classified as each class (columns)."""
    pairs = right.astype(np.int64) * classes + answers
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def confident_mistakes(
    answers: npt.NDArray[np.float32], right: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Returns the numbers of the pictures that are wrong, those first of which it was surest."""
    [wrong] = np.nonzero(answers.argmax(axis=1) != right)
    order: npt.NDArray[np.int64] = wrong[np.argsort(-answers[wrong].max(axis=1), kind="stable")]
    return order


def _commonest(matrix: npt.NDArray[np.int64], labels: Sequence[str]) -> Table:
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:5]
    pairs = [divmod(int(each), len(labels)) for each in order]
    rows = [
        [
            labels[is_],
            labels[answer],
            f"{off[is_, answer]:,}",
            f"{off[is_, answer] / matrix[is_].sum():.1%}",
        ]
        for is_, answer in pairs
        if off[is_, answer]
    ]
    return Table(("is", "taken for", "how often", "of its kind"), rows, "The commonest confusions")


def _matrix(matrix: npt.NDArray[np.int64], labels: Sequence[str]) -> Figure:
    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = drawing.subplots()
        off = matrix.astype(np.float64)
        np.fill_diagonal(off, 0)
        shades = LinearSegmentedColormap.from_list("wrong", [ink.paper, ink.second])
        axes.imshow(off, cmap=shades, vmin=0, vmax=max(1.0, off.max() * 1.15))
        for row, column in np.ndindex(*matrix.shape):
            if matrix[row, column]:
                colour = ink.first if row == column else ink.text
                weight = "bold" if row == column else "normal"
                axes.text(
                    column,
                    row,
                    f"{matrix[row, column]}",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=figures.SMALL,
                    fontweight=weight,
                )
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("the net says")
        axes.set_ylabel("it is")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return figures.draw(
        "errors-confusion",
        5.0,
        paint,
        alt="Confusion matrix of the held-out digits: large counts on the diagonal, small ones "
        "beside it, the commonest confusions shaded.",
        caption="Confusion matrix, counts of held-out digits; the shade marks mistakes.",
    )


def _pictures(
    pixels: "Pixels",
    answers: npt.NDArray[np.float32],
    right: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.int64],
    labels: Sequence[str],
) -> Figure:
    rows = -(-len(chosen) // ACROSS)
    titles = [
        f"says {labels[int(answers[n].argmax())]} ({answers[n].max():.1%}),\n"
        f"is {labels[int(right[n])]}"
        for n in chosen
    ]

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        grid = np.atleast_2d(drawing.subplots(rows, ACROSS, squeeze=False))
        for axes in grid.flat:
            axes.axis("off")
        for axes, number, title in zip(grid.flat, chosen, titles, strict=False):
            figures.picture(axes, pixels[number], title)

    return figures.draw(
        "errors-confident",
        1.85 * rows,
        paint,
        alt="The most confident mistakes, each titled with what the net says: "
        + "; ".join(titles).replace("\n", " "),
        caption="What the net says, how sure it is, and what the label says.",
        photographic=True,
    )


def _photographs(material: Material) -> list[Part]:
    net, photographs = material.photo_net, material.photographs
    if net is None or photographs is None:
        return [
            "What a net looks at when it decides, by Grad-CAM: name a net for photographs with "
            "`--photos BUNDLE` and its pictures with `--photo-data DIR`."
        ]
    if not net.convolutions:
        return ["Your net for photographs has no convolution, which Grad-CAM needs."]
    answers = net.answers(photographs.pixels)
    sure, choice = answers.max(axis=1), answers.argmax(axis=1)
    correct = choice == photographs.labels
    chosen = one_of_each(sure, correct, photographs.labels)
    heat = grad_cam.maps(net, photographs.pixels[chosen], choice[chosen])
    titles = [
        f"{photographs.names[choice[n]]} ({sure[n]:.0%})"
        + ("" if correct[n] else f",\nis {photographs.names[int(photographs.labels[n])]}")
        for n in chosen
    ]
    return [
        f"Your net for photographs has {correct.mean():.1%} of {len(correct):,} held-out ones "
        "right. Grad-CAM weights the last convolution's maps by how much each speaks for the "
        "class that the net chose, and shows where they are strong.",
        _heat(photographs.pixels[chosen], heat, titles),
    ]


def one_of_each(
    sure: npt.NDArray[np.floating],
    correct: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.integer],
) -> npt.NDArray[np.int64]:
    """Returns for each class the picture of it that the net is surest of and has right, and wrong.

    Those of the first CLASSES classes; one that is missing is left out.

    Args:
        sure: [N], probability of the answer.
        correct: [N], whether it is right.
        labels: [N], what it is.
    """
    order = np.argsort(-sure, kind="stable")
    chosen = [
        order[(labels[order] == label) & (correct[order] == right)][:1]
        for label in np.unique(labels)[:CLASSES]
        for right in (True, False)
    ]
    numbers: npt.NDArray[np.int64] = np.concatenate(chosen)
    return numbers


def _heat(pixels: "Pixels", heat: npt.NDArray[Any], titles: Sequence[str]) -> Figure:
    rows = -(-len(titles) // ACROSS)

    def paint(drawing: "Drawing", ink: figures.Ink) -> None:
        grid = drawing.subplots(2 * rows, ACROSS, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for number, title in enumerate(titles):
            row, column = divmod(number, ACROSS)
            figures.picture(grid[2 * row, column], pixels[number], title)
            figures.picture(grid[2 * row + 1, column], pixels[number])
            grid[2 * row + 1, column].imshow(
                heat[number], cmap="inferno", alpha=0.6, vmin=0, vmax=1
            )

    return figures.draw(
        "errors-grad-cam",
        3.3 * rows,
        paint,
        alt="Photographs and below each the same under a map of heat where Grad-CAM finds what "
        "speaks for the class: " + "; ".join(titles).replace("\n", " "),
        caption="Grad-CAM of each class's surest right answer and surest mistake: bright is what "
        "spoke for the class in the title, which is the net's answer.",
        photographic=True,
    )
