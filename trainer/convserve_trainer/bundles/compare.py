"""Two bundles on the same held-out pictures: is one better, or was it luck?

Both err on mostly the same pictures, so their two accuracies say little of that. What counts are
the pictures that one gets right and the other does not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convserve_bundle.errors import BundleError
from convserve_bundle.manifest import is_softmax
from convserve_protos.bundle_pb2 import ImageKind, Manifest
from convserve_trainer.bundles import evaluate
from convserve_trainer.datasets.pictures import Pictures
from convserve_trainer.errors import DataError
from convserve_trainer.evaluation.differences import Difference, differences
from convserve_trainer.evaluation.predict import Answers
from convserve_trainer.evaluation.score import Score, score
from convserve_trainer.evaluation.score import right as is_right
from convserve_trainer.html.section import Table

LUCK = 0.05
"""The p-value from which on a difference counts as luck."""

_Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


@dataclass(frozen=True)
class Pairs:
    """Pictures by which of two bundles gets them right.

    Attributes:
        both: do.
        only_a: does.
        only_b: does.
        neither: does.
    """

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def total(self) -> int:
        """Pictures, 1 or more."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of B less that of A, -1 to 1."""
        return (self.only_b - self.only_a) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Where the difference lies on pictures of this sort, with a probability of about 95 %.

        Source: A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched
        proportions", Statistics in Medicine 24, 2005: Wald's, with half a picture more in each of
        the four groups.
        """
        only_a, only_b, total = self.only_a + 0.5, self.only_b + 0.5, self.total + 2
        middle = (only_b - only_a) / total
        wide = _Z * math.sqrt(only_a + only_b - (only_b - only_a) ** 2 / total) / total
        return max(-1.0, middle - wide), min(1.0, middle + wide)

    @property
    def p(self) -> float:
        """Probability of a difference as large as this, or larger, between equals.

        Source: Q. McNemar, "Note on the sampling error of the difference between correlated
        proportions or percentages", Psychometrika 12, 1947; here exactly, by the binomial
        distribution, from both sides.
        """
        apart = self.only_a + self.only_b
        tail = sum(_by_coins(apart, k) for k in range(min(self.only_a, self.only_b) + 1))
        return min(1.0, 2 * tail)


@dataclass(frozen=True)
class BundleComparison:
    """What `compare` finds.

    Attributes:
        files: the two model.onnx, A and B.
        scores: theirs.
        pairs: their pictures; of several labels those with all of them right.
        differences: where pictures have several labels, of mAP and F1; otherwise none.
    """

    files: tuple[Path, Path]
    scores: tuple[Score, Score]
    pairs: Pairs
    differences: Sequence[Difference] = ()

    @property
    def decisive(self) -> Difference:
        """The figure that says which is better: accuracy, or mAP where there are differences."""
        if self.differences:
            return self.differences[0]
        pairs = self.pairs
        a, b = ((pairs.both + only) / pairs.total for only in (pairs.only_a, pairs.only_b))
        return Difference("accuracy", a, b, pairs.interval, pairs.p)

    def as_dict(self) -> dict[str, object]:
        """Returns all figures."""
        pairs = self.pairs
        sides = {
            name: {"bundle": str(file)} | found.as_dict()
            for name, file, found in zip("ab", self.files, self.scores, strict=True)
        }
        counts = {name: getattr(pairs, name) for name in ("both", "only_a", "only_b", "neither")}
        found = {"difference": pairs.difference, "interval": pairs.interval, "p": pairs.p}
        several = [each.as_dict() for each in self.differences]
        return sides | counts | found | ({"differences": several} if several else {})

    def __str__(self) -> str:
        pairs, decisive = self.pairs, self.decisive
        low, high = pairs.interval
        verdict = (
            f"no evidence that one is better (p is {LUCK:g} or more)"
            if decisive.p >= LUCK
            else f"{better(decisive)} is better, and hardly by luck"
        )
        what = "all labels right" if self.differences else "right"
        several = (
            f"; {verdict}"
            if not self.differences
            else "\n".join(["", *map(str, self.differences), f"by mAP: {verdict}"])
        )
        return "\n".join(
            (
                *(
                    f"{name}  {file}: {found}"
                    for name, file, found in zip("AB", self.files, self.scores, strict=True)
                ),
                f"{what}: both {pairs.both:,}, A alone {pairs.only_a:,}, B alone {pairs.only_b:,}, "
                f"neither {pairs.neither:,}",
                f"accuracy of B less that of A: {pairs.difference:+.2%} "
                f"(95 % interval {low:+.2%} to {high:+.2%})",
                f"McNemar's exact test: p = {pairs.p:.3g}{several}",
            )
        )


@dataclass(frozen=True)
class SeveralComparisons:
    """The same two bundles on several data sets.

    Attributes:
        names: of the data sets, two or more.
        found: what `compare` finds on each.
    """

    names: Sequence[str]
    found: Sequence[BundleComparison]

    @property
    def adjusted(self) -> list[float]:
        """The p-value of each data set, raised so that all of them together err as one would.

        Of twenty data sets equals differ by luck on one, at a p-value of 0.05.

        Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
            Journal of Statistics 6, 1979.
        """
        values = [each.decisive.p for each in self.found]
        adjusted, least = values.copy(), 0.0
        for rank, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
            least = max(least, min(1.0, (len(values) - rank) * values[number]))
            adjusted[number] = least
        return adjusted

    def as_dict(self) -> dict[str, object]:
        """Returns all figures; those of each data set as `BundleComparison` has them."""
        sets = [
            {"data": name} | each.as_dict() | {"p_holm": p}
            for name, each, p in zip(self.names, self.found, self.adjusted, strict=True)
        ]
        return {"data_sets": sets}

    def __str__(self) -> str:
        rows = []
        for name, each, p in zip(self.names, self.found, self.adjusted, strict=True):
            decisive = each.decisive
            low, high = decisive.interval
            rows.append(
                (
                    name,
                    f"{each.pairs.total:,}",
                    *(f"{value:.2%}" for value in (decisive.a, decisive.b)),
                    f"{decisive.difference:+.2%}",
                    f"{low:+.2%} to {high:+.2%}",
                    f"{p:.3g}",
                    "no evidence" if p >= LUCK else better(decisive),
                )
            )
        head = ("data", "pictures", "A", "B", "B less A", "95 % interval", "p", "better")
        several = bool(self.found[0].differences)
        test = "mAP; p: the bootstrap over pairs" if several else "p: McNemar's exact test"
        caption = (
            f"{test}, adjusted by Holm's method for so many data sets; "
            f"no evidence: p is {LUCK:g} or more"
        )
        files = [f"{name}  {file}" for name, file in zip("AB", self.found[0].files, strict=True)]
        return "\n".join([*files, "", str(Table(head, rows, caption))])


def compare(a: Path, b: Path, held_out: Callable[[Manifest], Pictures]) -> BundleComparison:
    """Compares two bundles.

    Args:
        a: path of a bundle, see `evaluate.check`.
        b: of the other.
        held_out: returns the pictures for the manifest of a bundle, which says their size; the
            same ones, in the same order, for both.

    Raises:
        BundleError: one is none, or they do not answer the same question.
        DataError: pictures cannot be read.
    """
    (file_a, about_a), (file_b, about_b) = evaluate.check(a), evaluate.check(b)
    _check_alike(about_a, about_b)
    answers_a, right = evaluate.answers(file_a, held_out(about_a))
    answers_b, right_for_b = evaluate.answers(file_b, held_out(about_b))
    if not np.array_equal(right, right_for_b):
        raise DataError("the two bundles could not read the same pictures; run check-data on them")
    by_a, by_b = evaluate.thresholds_of(about_a), evaluate.thresholds_of(about_b)
    several: Sequence[Difference] = ()
    if by_a is not None and by_b is not None:
        several = differences((Answers(answers_a, right), by_a), (Answers(answers_b, right), by_b))
    return BundleComparison(
        (file_a, file_b),
        (score(answers_a, right, by_a), score(answers_b, right, by_b)),
        paired(is_right(answers_a, right, by_a), is_right(answers_b, right, by_b)),
        several,
    )


def better(found: Difference) -> str:
    """Returns the name of the one whose figure is higher: "A", where it is not "B"."""
    return "B" if found.difference > 0 else "A"


def paired(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> Pairs:
    """Returns the pairs of two answers each: whether A is right, bool [N], and B, bool [N]."""
    return Pairs(
        both=int((a & b).sum()),
        only_a=int((a & ~b).sum()),
        only_b=int((~a & b).sum()),
        neither=int((~a & ~b).sum()),
    )


def _by_coins(throws: int, heads: int) -> float:
    """Returns the probability of so many heads; by logarithms, as thousands of throws overflow."""
    ways = math.lgamma(throws + 1) - math.lgamma(heads + 1) - math.lgamma(throws - heads + 1)
    return math.exp(ways - throws * math.log(2))


def _check_alike(a: Manifest, b: Manifest) -> None:
    """Refuses two bundles of which one's answers mean nothing to the other.

    Raises:
        BundleError: they take other kinds of pictures, or have other labels.
    """
    kinds = [ImageKind.Name(manifest.input.kind) for manifest in (a, b)]
    if kinds[0] != kinds[1]:
        raise BundleError(
            f"input.kind: expected the same of A and B, got {kinds[0]} and {kinds[1]}"
        )
    if is_softmax(a) is not is_softmax(b):
        raise BundleError("output: expected the same of A and B, got one label and several labels")
    if a.labels != b.labels:
        raise BundleError(
            f"labels: expected the same of A and B, in the same order, got "
            f"{', '.join(a.labels)} and {', '.join(b.labels)}"
        )
