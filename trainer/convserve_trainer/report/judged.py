"""Tables and figures of a judgement, for the report of a training and for `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convserve_trainer.evaluation import classes
from convserve_trainer.evaluation.classes import ClassFigures
from convserve_trainer.evaluation.corruptions import Corrupted
from convserve_trainer.evaluation.intervals import Interval
from convserve_trainer.evaluation.judgement import Judgement
from convserve_trainer.evaluation.mistakes import EACH, PAIRS, Examples
from convserve_trainer.evaluation.slices import Slice
from convserve_trainer.evaluation.traits import TRAITS
from convserve_trainer.html import figures
from convserve_trainer.html.figures import Ink
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NOTHING = "–"
ROW_IN = 1.05  # of a row of thumbnails
NAMED = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC AUC"}


@dataclass(frozen=True)
class Judged:
    """A judgement with pictures of what the net is wrong about.

    Attributes:
        judgement: of all pictures.
        examples: of the classes that are confused most.
    """

    judgement: Judgement
    examples: Sequence[Examples]


def sections(judged: Judged) -> list[Section]:
    """Returns what there is to say beyond right and wrong."""
    judgement = judged.judgement
    methods: list[Part] = [
        "A class's precision is the share of the answers of this class that are right, its recall "
        "the share of its pictures that are answered so, F1 their harmonic mean. ROC AUC is how "
        "often a picture of the class has a higher probability of it than a picture of another "
        "one. The intervals are those of Wilson for precision and recall, of Wilson's indirect "
        "method for F1, of Newcombe's fifth method for ROC AUC, and of the bootstrap for the mean "
        "of F1.",
        class_table(judgement),
        interval_table(judgement),
    ]
    found = [Section("classes", "Classes", methods)]
    if judgement.confusions:
        parts: list[Part] = [pair_table(judgement)]
        if judged.examples:
            parts.append(thumbnails(judged.examples, judgement.labels))
        found.append(Section("mistakes", "Mistakes", parts))
    if judgement.slices:
        text = (
            "The pictures in quarters, by what they are like whatever they show: brightness is the "
            "mean of their luma, contrast its standard deviation, and size that of the file, "
            "before it is brought to the size of the net. A part is worse, or better, where its "
            "interval does not hold the accuracy of all pictures; of twenty parts one is so by "
            "chance."
        )
        found.append(Section("slices", "Slices", [text, slice_table(judgement.slices)]))
    if judgement.corrupted:
        text = (
            "The same pictures, changed on purpose, each time in one way: what a net that meets "
            "such pictures in use should be trained on, too (levels, contrast, rotation and the "
            "like of a recipe's augmentation)."
        )
        found.append(Section("changed", "Changed pictures", [text, changed_table(judgement)]))
    return found


def tables(judgement: Judgement) -> list[Table]:
    """Returns all tables, as a terminal shows them."""
    found = [class_table(judgement), interval_table(judgement)]
    if judgement.confusions:
        found.append(pair_table(judgement))
    if judgement.slices:
        found.append(slice_table(judgement.slices))
    if judgement.corrupted:
        found.append(changed_table(judgement))
    return found


def chance(judgement: Judgement) -> str:
    """Returns how many pictures would be right without looking."""
    classes_, kinds = len(judgement.labels), judgement.confusion.sum(axis=1)
    return (
        f"Guessing would have {1 / classes_:.2%} right, one of {classes_}; the commonest class for "
        f"every picture {kinds.max() / kinds.sum():.2%}."
    )


def class_table(judgement: Judgement) -> Table:
    """Returns the figures of each class, and their means."""
    wrong: dict[int, str] = {}
    for each in judgement.confusions:
        wrong.setdefault(each.true, f"{judgement.labels[each.answered]} ({each.count:,})")
    rows = [
        (
            of_class.label,
            f"{of_class.pictures:,}",
            *_cells(of_class),
            wrong.get(number, "none"),
        )
        for number, of_class in enumerate(judgement.classes)
    ]
    means = [_shown(classes.macro(judgement.classes, name)) for name in classes.FIGURES]
    rows.append(("mean", f"{judgement.score.total:,}", *means, ""))
    head = ("class", "pictures", *NAMED.values(), "mostly taken for")
    return Table(head, rows, "Each class against the rest")


def interval_table(judgement: Judgement) -> Table:
    """Returns the interval of each figure of each class."""
    rows = [
        (each.label, *(_range(getattr(each, f"{name}_interval")) for name in classes.FIGURES))
        for each in judgement.classes
    ]
    macro = ["", "", _range(classes.macro_f1_interval(judgement.confusion)), ""]
    rows.append(("mean", *macro))
    return Table(("class", *NAMED.values()), rows, "95 % intervals of these figures")


def pair_table(judgement: Judgement) -> Table:
    """Returns which class is mistaken for which, the commonest first."""
    found = judgement.confusions
    rows = []
    for each in found[: 2 * PAIRS]:
        name, total = judgement.labels[each.true], judgement.classes[each.true].pictures
        rows.append(
            (name, judgement.labels[each.answered], f"{each.count:,}", f"{each.count / total:.2%}")
        )
    shown = f"; the commonest {len(rows)} of {len(found):,}" if len(rows) < len(found) else ""
    head = ("what it is", "what the net says", "pictures", "of the class")
    return Table(head, rows, f"Classes that are mistaken for others{shown}")


def slice_table(slices: Sequence[Slice]) -> Table:
    """Returns how the net does on parts of the pictures."""
    rows = [
        (
            f"{each.trait} {each.low:.0f} to {each.high:.0f}",
            f"{each.pictures:,}",
            f"{each.accuracy:.2%}",
            f"{each.interval[0]:.2%} to {each.interval[1]:.2%}",
            each.verdict or NOTHING,
        )
        for each in slices
    ]
    units = dict.fromkeys(each.trait for each in slices)
    caption = "Parts of the pictures; " + ", ".join(f"{name} in {TRAITS[name]}" for name in units)
    head = ("part", "pictures", "accuracy", "95 % interval", "than all")
    return Table(head, rows, caption)


def changed_table(judgement: Judgement) -> Table:
    """Returns how the net does on pictures that are changed on purpose, and on them as they are."""
    score = judgement.score
    as_they_are = Corrupted("nothing", score.total, score.correct)
    rows = [
        (
            each.change,
            f"{each.pictures:,}",
            f"{each.accuracy:.2%}",
            f"{each.interval[0]:.2%} to {each.interval[1]:.2%}",
        )
        for each in (as_they_are, *judgement.corrupted)
    ]
    head = ("change", "pictures", "accuracy", "95 % interval")
    return Table(head, rows, "Pictures that are changed on purpose")


def thumbnails(examples: Sequence[Examples], labels: Sequence[str]) -> Figure:
    """Returns pictures that the net is wrong about: a row for two classes.

    Args:
        examples: one or more.
        labels: names of the classes.
    """
    titles = [
        f"{labels[each.confusion.true]} taken for {labels[each.confusion.answered]}: "
        f"{counted(each.confusion.count, 'picture')}"
        for each in examples
    ]

    def paint(drawing: "Drawing", ink: Ink) -> None:
        rows = drawing.subfigures(len(examples), 1, squeeze=False)[:, 0]
        for part, each, title in zip(rows, examples, titles, strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=figures.SMALL, color=ink.text)
            axes = part.subplots(1, EACH, squeeze=False)[0]
            for number, one in enumerate(axes):
                if number < len(each.pixels):
                    sure = f"{each.confidences[number]:.0%}"
                    figures.picture(one, each.pixels[number])
                    one.set_xlabel(sure, fontsize=figures.SMALL, color=ink.text)
                else:
                    figures.bare(one)

    return figures.draw(
        "mistakes",
        ROW_IN * len(examples) + 0.5 * len(examples),
        paint,
        alt="; ".join(titles),
        caption="Pictures that the net is wrong about, of the classes that it confuses most, those "
        "that it is surest about first; below each the probability of its wrong answer",
        photographic=True,
        page_only=True,
    )


def _cells(of_class: ClassFigures) -> list[str]:
    return [_shown(getattr(of_class, name)) for name in classes.FIGURES]


def _shown(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _range(found: Interval | None) -> str:
    return NOTHING if found is None else f"{found[0]:.4f} to {found[1]:.4f}"
