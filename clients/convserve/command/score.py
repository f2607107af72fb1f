"""How many labelled pictures were answered right, and what was answered for the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from convserve.command.file_outcomes import Trouble
from convserve.command.tally import Tally
from convserve.results import Classification

MOST_LISTED = 10
"""Pictures without an answer that are listed by name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One labelled picture and what became of it.

    Attributes:
        picture: Its file, or its index in a file of many.
        label: What is on it.
        outcome: The label that was answered, or why there is none.
        version: Of the model that answered; None for none.
    """

    picture: str
    label: str
    outcome: str | Trouble
    version: int | None = None

    @classmethod
    def of(cls, picture: str, label: str, answer: Classification, index: int = 0) -> Verdict:
        """Returns the verdict on an image of an answer, by its index."""
        return cls(picture, label, answer[index].label, answer.version)


class Score:
    """Counts verdicts one by one; holds some numbers for each class, and none for a picture.

    Attributes:
        tally: What was answered, and why there was no answer, whatever would have been right.
        asked: Pictures by their label.
        taken_for: For each label, pictures by the label that was answered.
        versions: Versions of the model that answered.
        unanswered: The first pictures that have no answer.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.asked: Counter[str] = Counter()
        self.taken_for: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.versions: set[int] = set()
        self.unanswered: list[tuple[str, Trouble]] = []

    def add(self, verdict: Verdict) -> None:
        """Counts one more picture."""
        self.asked[verdict.label] += 1
        if isinstance(verdict.outcome, Trouble):
            self.tally.add_trouble(verdict.outcome)
            if len(self.unanswered) < MOST_LISTED:
                self.unanswered.append((verdict.picture, verdict.outcome))
            return
        self.tally.add_label(verdict.outcome)
        self.taken_for[verdict.label][verdict.outcome] += 1
        if verdict.version is not None:
            self.versions.add(verdict.version)

    @property
    def right(self) -> int:
        """Pictures with the right answer."""
        return sum(map(self.right_of, self.asked))

    @property
    def accuracy(self) -> float | None:
        """Share of the answers that are right, 0 to 1; None if there was no answer."""
        return self.right / self.tally.classified if self.tally.classified else None

    def right_of(self, label: str) -> int:
        """Returns the pictures of a label with the right answer."""
        return self.taken_for[label][label]

    def answered_of(self, label: str) -> int:
        """Returns the pictures of a label with an answer."""
        return self.taken_for[label].total()

    def mistakes_of(self, label: str) -> Counter[str]:
        """Returns how many pictures of a label were answered with each other one."""
        return Counter(
            {other: count for other, count in self.taken_for[label].items() if other != label}
        )

    def labels(self, order: Sequence[str]) -> list[str]:
        """Returns the labels that were asked about, in the order of a model's labels."""
        return [label for label in order if label in self.asked]
