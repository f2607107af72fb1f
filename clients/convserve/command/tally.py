"""How it went: how many files were answered, with which labels, and why others were not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from convserve.command.file_outcomes import FileOutcome, Trouble
from convserve.command.terminal_text import printable
from convserve.errors import ServerUnavailable

# So many files in a row without an answer, through no fault of theirs: the next will have none.
PATIENCE_FILES = 32

_MOST_LABELS = 10


class Tally:
    """Counts outcomes one by one; holds a number for each label and each reason, nothing else.

    Attributes:
        labels: Files by the label that was answered; where pictures have several, by each of them.
        classified: Files with an answer.
        failures: Files without an answer, by the reason.
        unanswered_in_a_row: How many of the last files had no answer through no fault of theirs.
    """

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self.classified = 0
        self.failures: Counter[str] = Counter()
        self.unanswered_in_a_row = 0
        self._last_failure = ""
        self._started_s = time.monotonic()

    def add(self, file: FileOutcome) -> None:
        """Counts one more file."""
        if isinstance(file.outcome, Trouble):
            self.add_trouble(file.outcome)
        else:
            self.add_labels(one.label for one in file.outcome.classification.assigned)

    def add_label(self, label: str) -> None:
        """Counts one more picture that was answered so."""
        self.add_labels([label])

    def add_labels(self, labels: Iterable[str]) -> None:
        """Counts one more picture that was answered so; there may be none."""
        self.labels.update(labels)
        self.classified += 1
        self.unanswered_in_a_row = 0

    def add_trouble(self, trouble: Trouble) -> None:
        """Counts one more picture that has no answer."""
        self.failures[trouble.reason] += 1
        self.unanswered_in_a_row = self.unanswered_in_a_row + 1 if trouble.of_server else 0
        self._last_failure = trouble.message

    def check_patience(self, files: int = PATIENCE_FILES) -> None:
        """Gives up on a server that is there and answers nothing.

        Raises:
            ServerUnavailable: So many of the last files had no answer through no fault of theirs.
        """
        if self.unanswered_in_a_row >= files:
            raise ServerUnavailable(
                f"stopped, since {self.unanswered_in_a_row} files in a row had no answer; the last:"
                f" {self._last_failure}"
            )

    @property
    def took_s(self) -> float:
        """Seconds since the tally was begun."""
        return time.monotonic() - self._started_s

    @property
    def failed(self) -> int:
        """Files without."""
        return self.failures.total()

    def summary(self) -> str:
        """Returns one line for people."""
        parts = [f"{self.classified:,} classified"]
        if common := self.labels.most_common(_MOST_LABELS):
            others = len(self.labels) - len(common)
            rest = f" and {others:,} more labels" if others else ""
            parts[0] += f" ({_counts(common)}{rest})"
        failures = f" ({self.reasons()})" if self.failed else ""
        parts.append(f"{self.failed:,} failed{failures}")
        parts.append(f"{(self.classified + self.failed) / self.took_s:,.1f} images/s")
        return ", ".join(parts)

    def reasons(self) -> str:
        """Returns how many files had no answer for which reason, the most common one first."""
        return _counts(self.failures.most_common())


def _counts(counts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {printable(name)}" for name, count in counts)
