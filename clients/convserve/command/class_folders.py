"""Labelled pictures in a folder of classes: DIR/CLASS/*.jpg."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from convserve.calls import ClassifyOptions
from convserve.command.file_classifier import FileClassifier, preparation
from convserve.command.file_outcomes import Trouble
from convserve.command.in_order import in_order
from convserve.command.picture_paths import Found, find, suffixes_of
from convserve.command.retrying_caller import RetryingCaller
from convserve.command.score import Verdict
from convserve.errors import InvalidRequest
from convserve.models import ModelInfo
from convserve_imaging.folder_names import class_name, is_passed_over


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file and what is on it."""

    label: str
    found: Found


class ClassFolders:
    """Folders named as a model's labels, with the pictures of each.

    Attributes:
        per_call: Pictures in one call.
    """

    per_call = 1

    def __init__(self, folder: str, model: ModelInfo) -> None:
        """Looks at the folders, and for one picture in each.

        Args:
            folder: That which holds them.
            model: Whose labels they are named by; it also says which files are pictures.

        Raises:
            InvalidRequest: The name of a folder is not a label of the model, or has no pictures.
            OSError: The folder cannot be read.
        """
        self._folder = folder
        self._kind = model.kind
        self._suffixes = suffixes_of(model.file_formats)
        labels = {class_name(label): label for label in model.labels}
        self._folders: dict[str, str] = {}
        for name in class_names(folder):
            label = labels.get(class_name(name))
            if label is None:
                raise InvalidRequest(
                    f"{os.path.join(folder, name)}: expected a label of model {model.name}"
                    f" ({', '.join(model.labels)}), got {name}"
                )
            self._folders[name] = label
            first = next(self._files(name))
            if first.error is not None:
                raise InvalidRequest(f"{first.path}: {Trouble.of(first.error).message}")

    def pictures(self) -> Iterator[LabelledFile]:
        """Yields all files, class by class."""
        for name, label in self._folders.items():
            for found in self._files(name):
                yield LabelledFile(label, found)

    def verdicts(
        self, caller: RetryingCaller, options: ClassifyOptions, at_once: int
    ) -> Generator[Verdict, None, None]:
        """Asks about the files and yields what became of each, in order.

        Args:
            caller: Asks the server.
            options: What is asked.
            at_once: Files sent and not yet answered.

        Raises:
            ConvserveError: What would happen to the next file as well.
        """
        classifier = FileClassifier(caller, options, preparation(self._kind))

        def judge(each: LabelledFile) -> Verdict:
            outcome = classifier(each.found).outcome
            if isinstance(outcome, Trouble):
                return Verdict(each.found.path, each.label, outcome)
            return Verdict.of(each.found.path, each.label, outcome.classification)

        judged = in_order(judge, self.pictures(), at_once=at_once, abandon=caller.close)
        with closing(judged):
            yield from judged

    def _files(self, name: str) -> Iterator[Found]:
        return find([os.path.join(self._folder, name)], self._suffixes)


def class_names(folder: str) -> list[str]:
    """Returns the names of the folders in a folder, sorted, but for hidden and systems' own.

    Raises:
        OSError: It cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not is_passed_over(entry.name)
        )
