"""The command convserve-train check-data."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from convserve_trainer.cli import data_options
from convserve_trainer.cli.command import Command, print_note
from convserve_trainer.datasets import registry
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.host import streams

if TYPE_CHECKING:
    from convserve_trainer.check_data.result import CheckResult
    from convserve_trainer.check_data.tree import Tree

EPILOG = """exit status: 0 if the pictures are fit to train on, 1 if not, 2 for a wrong option or
a folder that is not there

examples:
  convserve-train check-data cats_dogs
  convserve-train check-data cats_dogs --fix --json
"""
FOLDER_HELP = (
    "with train/CLASS/*.jpg and validation/CLASS/*.jpg, or with CLASS/*.jpg alone; or anything "
    "else that fit photos --data accepts"
)
FLAGS = {
    "--fix": "move what is broken or a copy into DIR-set-aside, listed in its moved.tsv; of copies "
    "one stays, of those with two labels none [default: move nothing]",
    "--all": "name everything [default: the first 10 of each kind]",
    "--json": "print JSON [default: text]",
}
REDRAW_S = 0.1


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    command.add_argument("folder", metavar="DIR", type=Path, help=FOLDER_HELP)
    data_options.add_files(command)
    data_options.add_formats(command)
    for flag, what in FLAGS.items():
        command.add_argument(flag, action="store_true", help=what)


def run(options: argparse.Namespace) -> None:
    """Checks a picture set, and with `--fix` moves what spoils it and checks again.

    Raises:
        DataError: something in it would spoil a training; or a file could not be moved.
        UsageError: there is no such folder, or --fix with a list.
        OSError: a folder may not be read.
    """
    from convserve_trainer.check_data import report
    from convserve_trainer.check_data.findings import Severity
    from convserve_trainer.check_data.moves import move_files
    from convserve_trainer.check_data.result import as_dict
    from convserve_trainer.check_data.tree import printable

    folder: Path = options.folder
    if options.fix and registry.find_lister(folder):
        raise UsageError(
            f"--fix: expected class folders, got {printable(str(folder))}, which lists its pictures"
        )
    before = after = _checked(options)
    if not options.json:
        print(report.report(before, options.all, options.fix))
    moved = None
    if options.fix:
        moved = move_files(before.survey.tree, before.findings)
        if moved.moves:  # what is left is read anew: a move may have consequences
            after = _checked(options)
        if not options.json:
            print(report.moved(moved, after, options.all))
    if options.json:
        print(json.dumps(as_dict(before, moved, after), indent=2))
    if errors := after.count(Severity.ERROR):
        kinds = [f.kind.name for f in after.findings if f.kind.severity == Severity.ERROR]
        raise DataError(
            f"{printable(str(folder))} would spoil a training: "
            f"{errors:,} {'errors' if errors > 1 else 'error'} ({', '.join(kinds)})"
        )


COMMAND = Command(
    "check-data",
    "say what in folders of photographs would spoil a training, and what looks odd",
    EPILOG,
    add_options,
    run,
    outlives_reader=attrgetter("fix"),
)


def _checked(options: argparse.Namespace) -> "CheckResult":
    from convserve_trainer.check_data.result import check

    counters: list[Counter] = []

    def counter(tree: "Tree") -> Callable[[int], None]:
        counters.append(Counter(sys.stderr, len(tree.files)))
        return counters[0]

    try:
        return check(data_options.files(options), counter, print_note)
    finally:
        for drawn in counters:
            drawn.clear()


class Counter:
    """One line on a terminal that says how many pictures are done; it is gone in the end.

    Args:
        stream: takes the line; nothing is drawn where it is not a terminal.
        total: pictures.
    """

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._started = self._drawn = time.monotonic()
        self._width = 0

    def __call__(self, done: int) -> None:
        """Shows that so many are done; redraws ten times a second at most."""
        now = time.monotonic()
        if not streams.is_screen(self._stream):
            return
        if done == self._total:
            self._draw(f"comparing {done:,} pictures")
            return
        if now - self._drawn < REDRAW_S:
            return
        self._drawn = now
        left = (now - self._started) / done * (self._total - done)
        self._draw(f"decoding  {done:,}/{self._total:,} pictures  {left:.0f} s left")

    def clear(self) -> None:
        """Clears the line."""
        if self._width:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, line: str) -> None:
        self._stream.write(f"\r{line:<{self._width}}")
        self._stream.flush()
        self._width = len(line)
