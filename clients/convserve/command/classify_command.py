"""`convserve classify`: what is on each of some picture files, or of very many."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain, islice

from convserve.calls import ClassifyOptions
from convserve.command.file_classifier import FileClassifier, preparation, read_endless
from convserve.command.file_outcomes import Answered, FileOutcome
from convserve.command.file_probe import FileProbe
from convserve.command.in_order import in_order
from convserve.command.json_output import json_line, json_objects
from convserve.command.picture_paths import STDIN, Found, find, suffixes_of
from convserve.command.progress_bar import ProgressBar
from convserve.command.retrying_caller import RetryingCaller
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
    with closing(RetryingCaller.of(arguments)) as caller:
        return _classify(arguments, caller)


def _classify(arguments: argparse.Namespace, caller: RetryingCaller) -> int:
    probe = FileProbe(arguments.files)
    model = caller.model(
        arguments.model,
        arguments.model_version,
        lambda loaded: probe.choose_model(loaded, arguments.model_version),
    )
    if arguments.show and model.kind != "digits":
        raise InvalidRequest.expected("--show", "a model of digits", model.name)
    suffixes = suffixes_of(model.file_formats)
    found = probe.with_contents(find(arguments.files, suffixes))
    first = list(islice(found, FIRST_FILES))
    progress = arguments.progress and sys.stderr.isatty() and not sys.stdout.isatty()
    tally = Tally()
    try:
        with ExitStack() as stack:
            bar = None
            if progress and len(first) > 1:
                bar = ProgressBar(sys.stderr, find(arguments.files, suffixes))
                stack.callback(bar.close)
                caller.wait.say = bar.say
            show = stack.enter_context(_printing(arguments, model, first))
            for file in stack.enter_context(
                closing(_outcomes(arguments, model, caller, chain(first, found)))
            ):
                tally.add(file)
                show(file)
                if bar is not None:
                    bar.step(tally.failed)
                tally.check_patience()
    finally:
        nobody_reads = isinstance(sys.exc_info()[1], BrokenPipeError)
        wanted = (progress or arguments.format == "table") and not nobody_reads
        if wanted and tally.classified + tally.failed > 1:
            print(tally.summary(), file=sys.stderr)
    if not all(path == STDIN or os.path.exists(path) for path in arguments.files):
        return 2
    return 1 if tally.failed else 0


def _outcomes(
    arguments: argparse.Namespace, model: ModelInfo, caller: RetryingCaller, found: Iterable[Found]
) -> Generator[FileOutcome, None, None]:
    options = ClassifyOptions(model.name, arguments.model_version, arguments.top_k or 1)
    classifier = FileClassifier(caller, options, preparation(model.kind))
    return in_order(
        classifier, read_endless(found), at_once=arguments.in_flight, abandon=caller.close
    )


@contextmanager
def _printing(
    arguments: argparse.Namespace, model: ModelInfo, first: Sequence[Found]
) -> Iterator[Callable[[FileOutcome], None]]:
    """Gives what prints an outcome."""
    if arguments.format != "table":
        with json_objects(arguments.format) as write:
            yield lambda file: write(json_line(file, classes=arguments.top_k is not None))
        return
    table = Table.of(
        [each.path for each in first],
        model.labels,
        top_k=arguments.top_k,
        terminal=sys.stdout.isatty(),
    )
    colour = has_colours(sys.stdout)

    def draw(file: FileOutcome) -> None:
        row = table.row(file)
        if (
            arguments.show
            and isinstance(file.outcome, Answered)
            and file.outcome.pixels is not None
        ):
            row = f"{draw_digit(file.outcome.pixels, colour=colour)}\n{row}"
        # One write for a row, so that an interrupt leaves whole rows.
        sys.stdout.write(row + "\n")
        sys.stdout.flush()

    yield draw
