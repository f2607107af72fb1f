"""`convserve classify`: what is on each of some picture files, or of very many."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, islice

from convserve.calls import ClassifyOptions
from convserve.command.file_classifier import FileClassifier, preparation, read_endless
from convserve.command.file_outcomes import Answered, FileOutcome
from convserve.command.first_look import FirstLook
from convserve.command.in_order import in_order
from convserve.command.json_lines import json_line
from convserve.command.patient_caller import PatientCaller
from convserve.command.picture_paths import STDIN, Found, find, suffixes_of
from convserve.command.progress_bar import ProgressBar
from convserve.command.table_rows import Table
from convserve.command.tally import Tally
from convserve.command.terminal import draw_digit, has_colours
from convserve.errors import InvalidRequest
from convserve.models import ModelInfo

# The files whose names decide how wide the table is.
FIRST_FILES = 64


def classify(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if every file was answered; 2 if one that was named is not there, 1 if another was not.

    Raises:
        ConvserveError: The server gave no answer, or none that another file could have had.
    """
    with closing(PatientCaller.of(arguments)) as caller:
        return _classify(arguments, caller)


def _classify(arguments: argparse.Namespace, caller: PatientCaller) -> int:
    look = FirstLook(arguments.files)
    model = caller.model(
        arguments.model,
        arguments.model_version,
        lambda loaded: look.model(loaded, arguments.model_version),
    )
    if arguments.show and model.kind != "digits":
        raise InvalidRequest.of("--show", f"draws digits, and {model.name} is no model of digits")
    suffixes = suffixes_of(model.kind)
    found = look.again(find(arguments.files, suffixes))
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
                caller.wait.say = bar.say
            for file in stack.enter_context(
                closing(_outcomes(arguments, model, caller, chain(first, found)))
            ):
                tally.add(file)
                # One write for a row, so that an interrupt leaves whole rows.
                sys.stdout.write(draw(file) + "\n")
                sys.stdout.flush()
                if bar is not None:
                    bar.step(tally.failed)
                tally.check_patience()
    finally:
        nobody_reads = isinstance(sys.exc_info()[1], BrokenPipeError)
        told = (progress or arguments.format == "table") and not nobody_reads
        if told and tally.classified + tally.failed > 1:
            print(tally.summary(), file=sys.stderr)
    if not all(path == STDIN or os.path.exists(path) for path in arguments.files):
        return 2
    return 1 if tally.failed else 0


def _outcomes(
    arguments: argparse.Namespace, model: ModelInfo, caller: PatientCaller, found: Iterable[Found]
) -> Generator[FileOutcome, None, None]:
    options = ClassifyOptions(model.name, arguments.model_version, arguments.top_k or 1)
    classifier = FileClassifier(caller, options, preparation(model.kind))
    return in_order(
        classifier, read_endless(found), at_once=arguments.in_flight, abandon=caller.close
    )


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
    colour = has_colours(sys.stdout)

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
