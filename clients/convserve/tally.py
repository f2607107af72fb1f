"""How it went: how many files were answered, with which labels, and why others were not."""

from __future__ import annotations

import time
from collections import Counter

from convserve.file_outcomes import FileOutcome, Trouble
from convserve.terminal import printable

_MOST_LABELS = 10


class Tally:
    """Counts outcomes as they come; holds a number for each label and each reason, nothing else.

    Attributes:
        labels: Files by the label that was answered.
        failures: Files without an answer, by the reason.
        unanswered_in_a_row: How many of the last files had no answer through no fault of theirs.
    """

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.unanswered_in_a_row = 0
        self._started_s = time.monotonic()

    def add(self, file: FileOutcome) -> None:
        """Counts one more file."""
        outcome = file.outcome
        if isinstance(outcome, Trouble):
            self.failures[outcome.reason] += 1
            self.unanswered_in_a_row = self.unanswered_in_a_row + 1 if outcome.of_server else 0
        else:
            self.labels[outcome.classification.label] += 1
            self.unanswered_in_a_row = 0

    @property
    def classified(self) -> int:
        """Files with an answer."""
        return self.labels.total()

    @property
    def failed(self) -> int:
        """Files without."""
        return self.failures.total()

    def summary(self) -> str:
        """Returns one line for people."""
        took_s = time.monotonic() - self._started_s
        parts = [f"{self.classified:,} classified"]
        if common := self.labels.most_common(_MOST_LABELS):
            others = len(self.labels) - len(common)
            rest = f" and {others:,} more labels" if others else ""
            parts[0] += f" ({_counts(common)}{rest})"
        failures = f" ({_counts(self.failures.most_common())})" if self.failed else ""
        parts.append(f"{self.failed:,} failed{failures}")
        parts.append(f"{(self.classified + self.failed) / took_s:,.1f} images/s")
        return ", ".join(parts)


def _counts(counts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {printable(name)}" for name, count in counts)
