"""The figures of a picture set: how many of each class, and how large."""

from collections import Counter
from dataclasses import dataclass
from statistics import median_low

from convserve_trainer.check_data.survey import Survey
from convserve_trainer.check_data.tree import WHOLE


@dataclass(frozen=True, slots=True)
class ClassCount:
    """The files of a class in a split.

    Attributes:
        split: "train", "validation" or "all".
        label: name of the class.
        files: that count as pictures.
        broken: of them, those that give no picture.
        turned: of them, those with an Exif orientation.
    """

    split: str
    label: str
    files: int
    broken: int
    turned: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the usable pictures, each width and height, in pixels, upright.

    Attributes:
        smallest: picture by area.
        median: of the widths and of the heights.
        largest: picture by area.
    """

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


def class_counts(survey: Survey) -> list[ClassCount]:
    """Returns the counts of every class folder, split by split."""
    files = Counter((file.split, file.label) for file in survey.tree.files)
    broken = Counter((file.split, file.label) for file in survey.faults)
    turned = Counter(
        (file.split, file.label)
        for file, picture in survey.pictures.items()
        if picture.orientation != 1
    )
    keys = [(split, label) for split, names in survey.tree.classes.items() for label in names]
    return [ClassCount(*key, files[key], broken[key], turned[key]) for key in keys]


def sizes(survey: Survey) -> Sizes | None:
    """Returns the sizes; None if there is no usable picture."""
    pictures = [(picture.width, picture.height) for picture in survey.pictures.values()]
    if not pictures:
        return None
    by_area = sorted(pictures, key=lambda sides: (sides[0] * sides[1], sides))
    widths, heights = zip(*pictures, strict=True)
    return Sizes(by_area[0], (median_low(widths), median_low(heights)), by_area[-1])


def skipped(survey: Survey) -> dict[str, int]:
    """Returns how many files and folders of each kind are passed over."""
    return dict(Counter(entry.kind for entry in survey.tree.skipped).most_common())


def splits_named(survey: Survey) -> str:
    """Returns which splits there are, for a title."""
    splits = [split for split, names in survey.tree.classes.items() if names and split != WHOLE]
    return " and ".join(splits) or "not split"
