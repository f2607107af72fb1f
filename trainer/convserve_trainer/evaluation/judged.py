"""A judgement of a net with pictures that it is wrong about, of one label a picture or several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from convserve_trainer.datasets.pictures import Pictures
from convserve_trainer.evaluation import judgement as single
from convserve_trainer.evaluation import labels_judgement as several
from convserve_trainer.evaluation import mistakes
from convserve_trainer.evaluation.corruptions import Corrupted
from convserve_trainer.evaluation.judgement import Judgement
from convserve_trainer.evaluation.labels_judgement import LabelExamples, LabelsJudgement
from convserve_trainer.evaluation.mistakes import Examples
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Thresholds
from convserve_trainer.evaluation.traits import Traits


@dataclass(frozen=True)
class Judged:
    """A judgement with pictures of what the net is wrong about.

    Attributes:
        judgement: of all pictures.
        examples: of the classes that are confused most.
    """

    judgement: Judgement
    examples: Sequence[Examples]


@dataclass(frozen=True)
class LabelsJudged:
    """The same where pictures have several labels.

    Attributes:
        judgement: of all pictures.
        examples: of the commonest mistakes.
    """

    judgement: LabelsJudgement
    examples: Sequence[LabelExamples]


AnyJudged: TypeAlias = Judged | LabelsJudged


def judge(
    labels: Sequence[str],
    answers: Answers,
    pictures: Pictures,
    traits: Traits,
    changed: Sequence[Corrupted],
) -> Judged:
    """Returns how a net does on all of some pictures, of which each has one label.

    Args:
        labels: names of the K classes.
        answers: to the pictures.
        pictures: one or more.
        traits: of them.
        changed: how it does on them when they are changed on purpose.

    Raises:
        DataError: too many pictures cannot be read.
    """
    found = single.judge(labels, answers, traits, changed)
    return Judged(found, mistakes.examples(answers, pictures, found.confusions))


def judge_labels(
    labels: Sequence[str],
    answers: Answers,
    pictures: Pictures,
    traits: Traits,
    thresholds: Thresholds,
) -> LabelsJudged:
    """Returns how a net does on all of some pictures, of which each has several labels.

    Args:
        labels: names of the K labels.
        answers: to the pictures.
        pictures: one or more.
        traits: of them.
        thresholds: of the labels.

    Raises:
        DataError: too many pictures cannot be read.
    """
    return LabelsJudged(
        several.judge(labels, answers, thresholds, traits),
        several.examples(answers, thresholds, pictures),
    )
