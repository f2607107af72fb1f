"""`convserve classify`: what is on each of some picture files, or of very many."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain, islice

from convserve.calls import Question
from convserve.client import Client
from convserve.errors import InvalidRequest, ServerUnavailable
from convserve.file_classifier import FileClassifier, preparation, read_endless
from convserve.file_outcomes import Answered, FileOutcome, Trouble
from convserve.in_order import in_order
from convserve.json_lines import json_line
from convserve.models import ModelInfo, find_model
from convserve.picture_paths import DIGIT_SUFFIXES, PHOTO_SUFFIXES, Found, find
from convserve.progress_bar import ProgressBar
from convserve.table_rows import Table
from convserve.tally import Tally
from convserve.terminal import draw_digit

# The files whose names decide how wide the table is.
FIRST_FILES = 64

# So many files in a row without an answer, through no fault of theirs: the next will have none.
PATIENCE_FILES = 32


def classify(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if every file was answered, 1 if not.

    Raises:
        ConvserveError: The server gave no answer, or none that another file could have had.
    """
    with _connect(arguments) as client:
        model = find_model(client.models(), arguments.model, arguments.model_version)
    if arguments.show and model.kind != "digits":
        raise InvalidRequest.of("--show", f"draws digits, and {model.name} is no model of digits")
    suffixes = DIGIT_SUFFIXES if model.kind == "digits" else PHOTO_SUFFIXES
    found = find(arguments.files, suffixes)
    first = list(islice(found, FIRST_FILES))
    draw = _drawing(arguments, model, first)
    progress = arguments.progress and sys.stderr.isatty() and not sys.stdout.isatty()
    tally = Tally()
    try:
        with ExitStack() as stack:
            bar = None
            if progress and len(first) > 1:
                bar = ProgressBar(sys.stderr, find(arguments.files, suffixes))
                stack.callback(bar.close)
            for file in stack.enter_context(_outcomes(arguments, model, chain(first, found))):
                tally.add(file)
                # One write for a row, so that an interrupt leaves whole rows.
                sys.stdout.write(draw(file) + "\n")
                sys.stdout.flush()
                if bar is not None:
                    bar.step(tally.failed)
                _check_patience(tally, file)
    finally:
        nobody_reads = isinstance(sys.exc_info()[1], BrokenPipeError)
        told = (progress or arguments.format == "table") and not nobody_reads
        if told and tally.classified + tally.failed > 1:
            print(tally.summary(), file=sys.stderr)
    return 1 if tally.failed else 0


def _connect(arguments: argparse.Namespace) -> Client:
    return Client(arguments.server, timeout=arguments.timeout)


@contextmanager
def _outcomes(
    arguments: argparse.Namespace, model: ModelInfo, found: Iterable[Found]
) -> Iterator[Iterator[FileOutcome]]:
    classifier = FileClassifier(
        lambda: _connect(arguments),
        Question(model.name, arguments.model_version, arguments.top_k or 1),
        preparation(model.kind),
        arguments.timeout,
    )
    outcomes = in_order(
        classifier,
        read_endless(found),
        at_once=arguments.in_flight,
        abandon=classifier.close,
    )
    with closing(classifier), closing(outcomes):
        yield outcomes


def _drawing(
    arguments: argparse.Namespace, model: ModelInfo, first: Sequence[Found]
) -> Callable[[FileOutcome], str]:
    """Returns what makes of an outcome the lines to print."""
    if arguments.format == "jsonl":
        return partial(json_line, classes=arguments.top_k is not None)
    table = Table.of(
        [each.path for each in first],
        model.labels,
        top_k=arguments.top_k or 1,
        terminal=sys.stdout.isatty(),
    )
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def draw(file: FileOutcome) -> str:
        row = table.row(file)
        if (
            arguments.show
            and isinstance(file.outcome, Answered)
            and file.outcome.pixels is not None
        ):
            return f"{draw_digit(file.outcome.pixels, colour=colour)}\n{row}"
        return row

    return draw


def _check_patience(tally: Tally, file: FileOutcome) -> None:
    if tally.unanswered_in_a_row >= PATIENCE_FILES and isinstance(file.outcome, Trouble):
        raise ServerUnavailable(
            f"stopped, since {tally.unanswered_in_a_row} files in a row had no answer; the last:"
            f" {file.outcome.message}"
        )
