"""`convserve evaluate`: how many of some labelled pictures a running server answers right."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from convserve.calls import ClassifyOptions, VersionChoice
from convserve.command.class_folders import ClassFolders, class_names
from convserve.command.held_out_idx import HeldOutIdx
from convserve.command.missing_input import MissingInput
from convserve.command.progress_bar import ProgressBar
from convserve.command.retrying_caller import RetryingCaller
from convserve.command.score import Score
from convserve.command.score_report import score_line, score_table
from convserve.command.tally import PATIENCE_FILES
from convserve.errors import InvalidRequest
from convserve.model_choice import choose_model
from convserve.models import ModelInfo
from convserve_imaging import idx_files, mnist_files

LabelledPictures = ClassFolders | HeldOutIdx
"""Labelled pictures of one layout."""


def evaluate(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if every picture was answered, and as many right as were asked for; 1 if not.

    Raises:
        ConvserveError: The folder has neither layout, or the server gave no answer, or none that
            another picture could have had.
    """
    _check_folder(arguments.folder)
    with closing(RetryingCaller.of(arguments)) as caller:
        model = caller.model(
            arguments.model,
            arguments.model_version,
            lambda loaded: chosen(arguments.folder, loaded, arguments.model_version),
        )
        pictures = find_pictures(arguments.folder, model)
        score = _ask(arguments, caller, model, pictures)
    show = score_table if arguments.format == "table" else score_line
    print(show(score, model, score.tally.took_s))
    missed = _missed(score.accuracy, arguments.min_accuracy)
    if missed:
        print(f"convserve: {missed}", file=sys.stderr)
    return 1 if score.tally.failed or missed else 0


def find_pictures(folder: str, model: ModelInfo) -> LabelledPictures:
    """Returns the labelled pictures in a folder, of whichever layout it has.

    Raises:
        InvalidRequest: It has neither, or what is in it does not fit the model.
    """
    if model.thresholds:
        raise InvalidRequest(
            f"model {model.name}: expected one whose pictures have one label, got one whose "
            "pictures have several: convserve-train evaluate judges that"
        )
    try:
        if idx_files.has_held_out(Path(folder)):
            return HeldOutIdx(folder, model)
        return ClassFolders(folder, model)
    except OSError as error:
        raise InvalidRequest(f"{folder}: {error.strerror}") from error


def chosen(folder: str, models: Sequence[ModelInfo], version: VersionChoice) -> str:
    """Returns the name of the model that labelled pictures mean, where none is named.

    Raises:
        ConvserveError: As model_choice.choose_model.
    """
    held_out = idx_files.has_held_out(Path(folder))
    # Digits of MNIST have the size and the labels of many a data set of pixels.
    of_mnist = held_out and all(
        mnist_files.is_published(Path(folder), file) for file in mnist_files.HELD_OUT
    )

    def fits(model: ModelInfo) -> bool:
        if held_out and (model.kind == "pixels") is of_mnist:
            return False
        try:
            find_pictures(folder, model)
        except InvalidRequest:
            return False
        return True

    return choose_model(models, version, fits, f"the labelled pictures in {folder}")


def _check_folder(folder: str) -> None:
    """Looks for one of the layouts before the server is waited for.

    Raises:
        MissingInput: There is no such folder.
        InvalidRequest: There is neither in it.
    """
    images, labels = idx_files.HELD_OUT
    expected = (
        f"expected a folder for each class, {os.path.join(folder, 'CLASS', '*.jpg')}, or MNIST's"
        f" {images} and {labels}"
    )
    if not os.path.exists(folder):
        raise MissingInput(f"{folder}: {expected}, got nothing")
    if not os.path.isdir(folder):
        raise InvalidRequest(f"{folder}: {expected}, got a file")
    try:
        if idx_files.has_held_out(Path(folder)) or class_names(folder):
            return
        found = "no labelled pictures" if os.listdir(folder) else "an empty folder"
    except OSError as error:
        raise InvalidRequest(f"{folder}: {error.strerror}") from error
    raise InvalidRequest(f"{folder}: {expected}, got {found}")


def _ask(
    arguments: argparse.Namespace,
    caller: RetryingCaller,
    model: ModelInfo,
    pictures: LabelledPictures,
) -> Score:
    options = ClassifyOptions(model.name, arguments.model_version, 1)
    score = Score()
    whole = False
    try:
        with ExitStack() as stack:
            bar = None
            if arguments.progress and sys.stderr.isatty():
                bar = ProgressBar(sys.stderr, pictures.pictures())
                stack.callback(bar.close)
                caller.wait.say = bar.say
            verdicts = pictures.verdicts(caller, options, arguments.in_flight)
            for verdict in stack.enter_context(closing(verdicts)):
                score.add(verdict)
                if bar is not None:
                    bar.step(score.tally.failed)
                score.tally.check_patience(PATIENCE_FILES * pictures.per_call)
        whole = True
    finally:
        # Standard output gets a whole score or nothing.
        if not whole and arguments.format == "table" and score.tally.classified:
            print(f"so far {score.right:,} right, {score.tally.summary()}", file=sys.stderr)
    return score


def _missed(accuracy: float | None, least: float | None) -> str | None:
    if least is None or (accuracy is not None and accuracy >= least):
        return None
    found = "no answer" if accuracy is None else f"{accuracy:.4f}"
    return f"--min-accuracy: expected at least {least:g}, got {found}"
