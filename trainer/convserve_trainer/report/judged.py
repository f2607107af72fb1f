"""Tables and figures of a judgement, for the report of a training and for `evaluate`."""

from collections.abc import Mapping, Sequence

from convserve_trainer.evaluation import classes
from convserve_trainer.evaluation.classes import ClassFigures
from convserve_trainer.evaluation.corruptions import Corrupted
from convserve_trainer.evaluation.judged import AnyJudged, LabelsJudged
from convserve_trainer.evaluation.judgement import Judgement
from convserve_trainer.evaluation.labels_judgement import LabelsJudgement
from convserve_trainer.evaluation.mistakes import PAIRS, Examples
from convserve_trainer.evaluation.slices import Slice
from convserve_trainer.evaluation.traits import TRAITS
from convserve_trainer.html.section import Figure, Part, Section, Table
from convserve_trainer.report import cells, figures, labels_judged
from convserve_trainer.report.thumbnails import Row, thumbnails
from convserve_trainer.wording import counted

NAMED = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC AUC"}


def headline(judgement: Judgement | LabelsJudgement, metrics: Mapping[str, float]) -> str:
    """Returns the figures of all pictures, as a sentence without its end.

    Args:
        judgement: of all pictures.
        metrics: theirs, as a manifest has them.
    """
    if isinstance(judgement, LabelsJudgement):
        return labels_judged.headline(judgement)
    interval = judgement.accuracy_interval
    assert interval is not None, "there is a picture or more"
    low, high = interval
    return (
        f"{int(metrics['correct']):,} of {int(metrics['total']):,} are right, "
        f"{metrics['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, by Wilson's method), "
        f"at a loss of {metrics['loss']:.4f}"
    )


def title(metrics: Mapping[str, float], what: str) -> str:
    """Returns the one figure that a page begins with.

    Args:
        metrics: of all pictures, as a manifest has them.
        what: they are: "pictures".
    """
    total = int(metrics["total"])
    if "map" in metrics:
        return f"mAP {metrics['map']:.2%} on {total:,} held-out {what}"
    return f"{metrics['accuracy']:.2%} of {total:,} held-out {what} right"


def matrix(judgement: Judgement | LabelsJudgement) -> list[Part]:
    """Returns the confusion matrix; nothing where pictures have several labels."""
    if isinstance(judgement, LabelsJudgement):
        return []
    return [figures.confusion(judgement.confusion, list(judgement.labels))]


def sections(judged: AnyJudged) -> list[Section]:
    """Returns what there is to say beyond right and wrong."""
    if isinstance(judged, LabelsJudged):
        several = judged.judgement
        return labels_judged.sections(several, judged.examples, _slice_parts(several.slices))
    judgement = judged.judgement
    methods: list[Part] = [
        "A class's precision is the share of the answers of this class that are right, its recall "
        "the share of its pictures that are answered so, F1 their harmonic mean. ROC AUC is how "
        "often a picture of the class has a higher probability of it than a picture of another "
        "one. The intervals are those of Wilson for precision and recall, of Wilson's indirect "
        "method for F1, of Newcombe's fifth method for ROC AUC, and of the bootstrap for the mean "
        "of F1; where no answer is wrong the bootstrap has none.",
        class_table(judgement),
        interval_table(judgement),
    ]
    found = [Section("classes", "Classes", methods)]
    if judgement.confusions:
        parts: list[Part] = [pair_table(judgement)]
        if judged.examples:
            parts.append(_thumbnails(judged.examples, judgement.labels))
        found.append(Section("mistakes", "Mistakes", parts))
    if judgement.slices:
        found.append(Section("slices", "Slices", _slice_parts(judgement.slices)))
    if judgement.corrupted:
        text = (
            "The same pictures, changed on purpose, each time in one way: what a net that meets "
            "such pictures in use should be trained on, too (levels, contrast, rotation and the "
            "like of a recipe's augmentation)."
        )
        found.append(Section("changed", "Changed pictures", [text, changed_table(judgement)]))
    return found


def _slice_parts(slices: Sequence[Slice]) -> list[Part]:
    """Returns text and table of parts of the pictures; nothing where there are none."""
    text = (
        "The pictures in quarters, by what they are like whatever they show: brightness is the "
        "mean of their luma, contrast its standard deviation, and size that of the file, "
        "before it is brought to the size of the net. A part is worse, or better, where its "
        "interval does not hold the accuracy of all pictures; of twenty parts one is so by "
        "chance."
    )
    return [text, slice_table(slices)] if slices else []


def tables(judgement: Judgement | LabelsJudgement) -> list[Table]:
    """Returns all tables, as a terminal shows them."""
    if isinstance(judgement, LabelsJudgement):
        some = [slice_table(judgement.slices)] if judgement.slices else []
        return [*labels_judged.tables(judgement), *some]
    found = [class_table(judgement), interval_table(judgement)]
    if judgement.confusions:
        found.append(pair_table(judgement))
    if judgement.slices:
        found.append(slice_table(judgement.slices))
    if judgement.corrupted:
        found.append(changed_table(judgement))
    return found


def chance(judgement: Judgement | LabelsJudgement) -> str:
    """Returns how many pictures would be right without looking."""
    if isinstance(judgement, LabelsJudgement):
        return labels_judged.chance(judgement)
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
    means = [cells.shown(classes.macro(judgement.classes, name)) for name in classes.FIGURES]
    rows.append(("mean", f"{judgement.score.total:,}", *means, ""))
    head = ("class", "pictures", *NAMED.values(), "mostly taken for")
    return Table(head, rows, "Each class against the rest")


def interval_table(judgement: Judgement) -> Table:
    """Returns the interval of each figure of each class."""
    rows = [
        (
            each.label,
            *(cells.between(getattr(each, f"{name}_interval")) for name in classes.FIGURES),
        )
        for each in judgement.classes
    ]
    macro = ["", "", cells.between(classes.macro_f1_interval(judgement.confusion)), ""]
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
            each.verdict or cells.NOTHING,
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


def _thumbnails(examples: Sequence[Examples], labels: Sequence[str]) -> Figure:
    """Returns pictures that the net is wrong about: a row for two classes.

    Args:
        examples: one or more.
        labels: names of the classes.
    """
    rows = [
        Row(
            f"{labels[each.confusion.true]} taken for {labels[each.confusion.answered]}: "
            f"{counted(each.confusion.count, 'picture')}",
            each.pixels,
            each.confidences,
        )
        for each in examples
    ]
    return thumbnails(
        rows,
        "Pictures that the net is wrong about, of the classes that it confuses most, those "
        "that it is surest about first; below each the probability of its wrong answer",
    )


def _cells(of_class: ClassFigures) -> list[str]:
    return [cells.shown(getattr(of_class, name)) for name in classes.FIGURES]
