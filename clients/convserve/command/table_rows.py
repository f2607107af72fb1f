"""Outcomes of files as a table, whose columns are set before the rows are known."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from convserve.command.file_outcomes import FileOutcome, Trouble
from convserve.command.terminal import BAR_CELLS, draw_bar
from convserve.command.terminal_text import padded, printable, shortened, width_of
from convserve.results import Classification, ClassScore

_GAP = "  "
_PROBABILITY = len("100.0%")
_LEAST_FILE = 24
_MOST_FILE = 100
_MOST_LABEL = 32


@dataclass(frozen=True, slots=True)
class Table:
    """The columns file, label, probability and a bar for it.

    Attributes:
        file_width: Columns of the terminal for the file.
        label_width: For the label.
        top_k: Classes of each file, a line for each; None: the labels that it has.
        bars: Draw the bars.
        shorten: Leave out the middle of paths that are too long, rather than go out of line.
    """

    file_width: int
    label_width: int
    top_k: int | None
    bars: bool
    shorten: bool

    @classmethod
    def of(
        cls, first_files: Iterable[str], labels: Iterable[str], *, top_k: int | None, terminal: bool
    ) -> Table:
        """Returns the table that suits the first files, and the terminal if there is one.

        Args:
            first_files: Paths of the first of them.
            labels: Of the model.
            top_k: Classes of each file; None: the labels that it has.
            terminal: Whether the table goes to one, and must fit it.
        """
        file_width = max((width_of(printable(file)) for file in first_files), default=0)
        label_width = max((width_of(printable(label)) for label in labels), default=0)
        label_width = max(1, min(label_width, _MOST_LABEL))
        file_width, bars = min(file_width, _MOST_FILE), True
        if terminal:
            left = shutil.get_terminal_size().columns - label_width - _PROBABILITY - 2 * len(_GAP)
            bars = left - len(_GAP) - BAR_CELLS >= _LEAST_FILE
            left -= (len(_GAP) + BAR_CELLS) * bars
            file_width = max(_LEAST_FILE, left) if file_width > left else file_width
        return cls(file_width, label_width, top_k, bars, terminal)

    def row(self, file: FileOutcome) -> str:
        """Returns the lines for a file, without a newline at the end."""
        name = printable(file.file)
        if self.shorten:
            name = shortened(name, self.file_width)
        if isinstance(file.outcome, Trouble):
            return self._line(name, "-", f"error: {printable(file.outcome.message)}")
        classification = file.outcome.classification
        if self.top_k is None and not classification.assigned:
            return self._line(name, "-", "no label reaches its threshold")
        lines = []
        for score in self._scores(classification):
            label = shortened(printable(score.label), self.label_width)
            bar = _GAP + draw_bar(score.probability) if self.bars else ""
            lines.append(self._line(name, label, f"{score.probability:6.1%}{bar}"))
            name = ""
        return "\n".join(lines)

    def _scores(self, classification: Classification) -> tuple[ClassScore, ...]:
        if self.top_k is None:
            return classification.assigned
        return classification.top(self.top_k)

    def _line(self, name: str, label: str, rest: str) -> str:
        columns = [padded(name, self.file_width), padded(label, self.label_width), rest]
        return _GAP.join(columns).rstrip()
