"""Tables and figures of a judgement where pictures have several labels; see `judged`."""

from collections.abc import Sequence

from convserve_trainer.evaluation import classes
from convserve_trainer.evaluation.labels_judgement import LabelExamples, LabelsJudgement
from convserve_trainer.evaluation.mistakes import PAIRS
from convserve_trainer.evaluation.thresholds import DEFAULT
from convserve_trainer.html.section import Part, Section, Table
from convserve_trainer.report import cells
from convserve_trainer.report.thumbnails import Row, thumbnails
from convserve_trainer.wording import counted

METHODS = (
    "A picture has each label whose probability reaches that label's threshold. A label's "
    "precision is the share of the pictures that were given it which have it, its recall the share "
    "of its pictures that were given it, F1 their harmonic mean. Average precision (AP) needs no "
    "threshold: it is the area below the curve of precision over recall, 1 where all pictures with "
    "the label have a higher probability of it than all others; mAP is its mean over the labels. "
    "ROC AUC is how often a picture with the label has a higher probability of it than one "
    "without. The intervals are those of Wilson for precision and recall, of Wilson's indirect "
    "method for F1, of Newcombe's fifth method for ROC AUC, and of the bootstrap for average "
    "precision and all means; where no answer is wrong the bootstrap has none."
)


def headline(judgement: LabelsJudgement) -> str:
    """Returns the figures of all pictures, as a sentence."""
    score = judgement.score
    return (
        f"mAP is {score.mean_average_precision:.2%}"
        f"{_between(judgement.intervals.mean_average_precision)}, F1 of all decisions "
        f"{score.f1_micro:.2%}{_between(judgement.intervals.f1_micro)}, its mean over the labels "
        f"{score.f1_macro:.2%}{_between(judgement.intervals.f1_macro)}; all labels are right, and "
        f"no other, of {score.correct:,} of {score.total:,} pictures, {score.accuracy:.2%}"
        f"{_between(judgement.accuracy_interval)}; at a loss of {score.loss:.4f}"
    )


def chance(judgement: LabelsJudgement) -> str:
    """Returns what would be right without looking."""
    total = judgement.score.total
    share = sum(each.pictures for each in judgement.classes) / (total * len(judgement.classes))
    return (
        f"Guessing would have an mAP of {share:.2%}, the mean share of pictures with a label; no "
        f"label for any picture would be right for {judgement.nothing / total:.2%} of them."
    )


def sections(
    judgement: LabelsJudgement, examples: Sequence[LabelExamples], slice_parts: Sequence[Part]
) -> list[Section]:
    """Returns what there is to say beyond all pictures.

    Args:
        judgement: of them.
        examples: of what the net is wrong about.
        slice_parts: of its slices; none where there are none.
    """
    found = [
        Section("labels", "Labels", [METHODS, label_table(judgement), interval_table(judgement)])
    ]
    parts: list[Part] = []
    if judgement.swaps:
        parts.append(swap_table(judgement))
    if examples:
        rows = [
            Row(_title(each, judgement.labels), each.pixels, each.confidences) for each in examples
        ]
        caption = (
            "Pictures that the net is wrong about, of the commonest mistakes, those that it is "
            "surest about first; below each the probability of the label"
        )
        parts.append(thumbnails(rows, caption))
    if parts:
        found.append(Section("mistakes", "Mistakes", parts))
    if slice_parts:
        found.append(Section("slices", "Slices", slice_parts))
    return found


def tables(judgement: LabelsJudgement) -> list[Table]:
    """Returns the tables as a terminal shows them, but for that of slices."""
    found = [label_table(judgement), interval_table(judgement)]
    return [*found, swap_table(judgement)] if judgement.swaps else found


def label_table(judgement: LabelsJudgement) -> Table:
    """Returns the figures of each label, and their means."""
    rows = [
        (
            each.label,
            f"{each.pictures:,}",
            f"{threshold:.3f}",
            *(cells.shown(getattr(each, name)) for name in ("precision", "recall", "f1")),
            cells.shown(precision),
            cells.shown(each.roc_auc),
        )
        for each, threshold, precision in zip(
            judgement.classes, judgement.thresholds, judgement.average_precisions, strict=True
        )
    ]
    precision, recall, f1, area = (
        cells.shown(classes.macro(judgement.classes, name)) for name in classes.FIGURES
    )
    average = cells.shown(judgement.score.mean_average_precision)
    total = f"{judgement.score.total:,}"
    rows.append(("mean", total, "", precision, recall, f1, average, area))
    micro = judgement.micro
    of_all = [cells.shown(each) for each in (micro.precision, micro.recall, micro.f1)]
    rows.append(("all decisions", total, "", *of_all, "", ""))
    head = ("label", "pictures", "threshold", "precision", "recall", "F1", "AP", "ROC AUC")
    return Table(head, rows, f"Each label; a threshold that was not chosen is {DEFAULT:g}")


def interval_table(judgement: LabelsJudgement) -> Table:
    """Returns the interval of each figure of each label."""
    found = judgement.intervals
    rows = [
        (
            each.label,
            *(
                cells.between(interval)
                for interval in (
                    each.precision_interval,
                    each.recall_interval,
                    each.f1_interval,
                    average,
                    each.roc_auc_interval,
                )
            ),
        )
        for each, average in zip(judgement.classes, found.average_precision, strict=True)
    ]
    means = (cells.between(found.f1_macro), cells.between(found.mean_average_precision))
    rows.append(("mean", "", "", *means, ""))
    rows.append(("all decisions", "", "", cells.between(found.f1_micro), "", ""))
    head = ("label", "precision", "recall", "F1", "AP", "ROC AUC")
    return Table(head, rows, "95 % intervals of these figures")


def swap_table(judgement: LabelsJudgement) -> Table:
    """Returns which labels are missed where others are answered wrongly, the commonest first."""
    found = judgement.swaps
    rows = [
        (judgement.labels[each.missed], judgement.labels[each.answered], f"{each.count:,}")
        for each in found[: 2 * PAIRS]
    ]
    some = f"; the commonest {len(rows)} of {len(found):,}" if len(rows) < len(found) else ""
    head = ("label that is missed", "label that is wrong", "pictures")
    return Table(head, rows, f"Labels in place of others, in the same picture{some}")


def _title(each: LabelExamples, labels: Sequence[str]) -> str:
    how = "missed" if each.missed else "answered where it is not"
    return f"{labels[each.label]} {how}: {counted(each.count, 'picture')}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2%} to {interval[1]:.2%})"
