"""`convserve classify`: what digit is in each of some picture files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from convserve.client import Client
from convserve.pixels import Batch
from convserve.results import Classification, Result
from convserve.terminal import draw_bar, draw_digit, printable
from convserve_imaging.digits import centre
from convserve_imaging.errors import PictureError

STDIN = "-"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is to be said of one file: its result, or why there is none."""

    file: str
    pixels: Batch | None  # uint8 [28, 28, 1]; None if the file could not be read.
    result: Result | None
    error: str | None


def classify(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if every file was answered, 1 if not.

    Raises:
        ConvserveError: The server gave no answer at all.
    """
    pictures = [_read(file) for file in arguments.files]
    good = [pixels for pixels in pictures if not isinstance(pixels, str)]
    answered = _ask(good, arguments) if good else None
    answers = list(_answers(arguments.files, pictures, answered))
    if arguments.format == "json":
        for answer in answers:
            print(json.dumps(_as_json(answer, answered, arguments.top_k)))
    else:
        _print_table(answers, arguments.top_k or 1, show=arguments.show)
    return 1 if any(answer.error for answer in answers) else 0


def _read(file: str) -> Batch | str:
    """Returns the digit in a file, uint8 [28, 28, 1], or the reason why there is none."""
    try:
        return centre(sys.stdin.buffer.read() if file == STDIN else file)
    except PictureError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _ask(pictures: Sequence[Batch], arguments: argparse.Namespace) -> Classification:
    with Client(arguments.server, model=arguments.model, timeout=arguments.timeout) as client:
        return client.classify(
            np.stack(pictures), version=arguments.model_version, top_k=arguments.top_k
        )


def _answers(
    files: Sequence[str], pictures: Sequence[Batch | str], answered: Classification | None
) -> Iterator[_Answer]:
    results = iter(answered or ())
    for file, picture in zip(files, pictures, strict=True):
        if isinstance(picture, str):
            yield _Answer(file, None, None, picture)
            continue
        result = next(results)
        error = None if result.error is None else str(result.error)
        yield _Answer(file, picture, result, error)


def _as_json(
    answer: _Answer, answered: Classification | None, top_k: int | None
) -> dict[str, object]:
    if answer.error is not None or answer.result is None or answered is None:
        return {"file": answer.file, "error": answer.error}
    best, *_ = top = answer.result.top(top_k)
    row: dict[str, object] = {
        "file": answer.file,
        "label": best.label,
        "probability": best.probability,
        "model": answered.model,
        "version": answered.version,
    }
    if top_k is not None:
        row["top"] = [{"label": one.label, "probability": one.probability} for one in top]
    return row


def _print_table(answers: Sequence[_Answer], top_k: int, *, show: bool) -> None:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    file_width = max(len(printable(answer.file)) for answer in answers)
    results = [answer.result for answer in answers if answer.result is not None]
    label_width = max((len(label) for one in results for label in one.labels), default=0)
    for answer in answers:
        name = printable(answer.file)
        if answer.error is not None or answer.result is None:
            sys.stdout.flush()  # So that the lines stand in the order of the files.
            print(f"convserve: {name}: {printable(answer.error or '')}", file=sys.stderr)
            continue
        if show and answer.pixels is not None:
            print(draw_digit(answer.pixels, colour=colour))
        for guess in answer.result.top(top_k):
            label = printable(guess.label)
            line = f"{name:<{file_width}}  {label:<{label_width}}  {guess.probability:6.1%}"
            print(f"{line}  {draw_bar(guess.probability)}".rstrip())
            name = ""
