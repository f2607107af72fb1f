"""The command `check-data`, from the folder to the exit status."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from convserve_trainer.check_data import report
from convserve_trainer.check_data.counter import Counter
from convserve_trainer.check_data.findings import Severity
from convserve_trainer.check_data.moves import move_files
from convserve_trainer.check_data.names import printable
from convserve_trainer.check_data.result import Checked, as_dict, check
from convserve_trainer.check_data.tree import Tree
from convserve_trainer.errors import DataError


@dataclass(frozen=True)
class Output:
    """How the result is shown.

    Attributes:
        stream: takes it.
        progress: takes the line that counts the pictures, if it is a terminal.
        as_json: JSON instead of a report.
        everything: a report names all things, not the first of each kind.
    """

    stream: TextIO
    progress: TextIO
    as_json: bool = False
    everything: bool = False


def run(folder: Path, fix: bool, output: Output) -> None:
    """Checks a picture set, and with `fix` moves what spoils it and checks again.

    Raises:
        DataError: something in it would spoil a training; or a file could not be moved.
        UsageError: there is no such folder.
        OSError: a folder may not be read.
    """
    before = after = _checked(folder, output.progress)
    if not output.as_json:
        print(report.report(before, output.everything, fix), file=output.stream)
    aside = None
    if fix:
        aside = move_files(before.survey.tree, before.findings)
        if aside.moves:  # what is left is read anew: a move may have consequences
            after = _checked(folder, output.progress)
        if not output.as_json:
            print(report.moved(aside, after, output.everything), file=output.stream)
    if output.as_json:
        print(json.dumps(as_dict(before, aside, after), indent=2), file=output.stream)
    if errors := after.count(Severity.ERROR):
        kinds = [f.kind.name for f in after.findings if f.kind.severity == Severity.ERROR]
        raise DataError(
            f"{printable(str(folder))} would spoil a training: "
            f"{errors:,} {'errors' if errors > 1 else 'error'} ({', '.join(kinds)})"
        )


def _checked(folder: Path, progress: TextIO) -> Checked:
    counters: list[Counter] = []

    def counter(tree: Tree) -> Callable[[int], None]:
        counters.append(Counter(progress, len(tree.files)))
        return counters[0]

    try:
        return check(folder, counter)
    finally:
        for drawn in counters:
            drawn.clear()
