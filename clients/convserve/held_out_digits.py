"""MNIST's 10,000 held-out digits, sent as pixels."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from convserve.calls import Question
from convserve.client import Client
from convserve.errors import InvalidRequest
from convserve.file_outcomes import OF_ONE_FILE, Trouble
from convserve.in_order import in_order
from convserve.models import ModelInfo
from convserve.patient_caller import PatientCaller
from convserve.results import Classification
from convserve.score import Verdict
from convserve.settings import MAX_IMAGES_PER_CALL
from convserve_imaging import mnist_files
from convserve_imaging.errors import DatasetError
from convserve_imaging.mnist_files import HELD_OUT, TEST_IMAGES

_LABELS = [str(digit) for digit in range(10)]


class HeldOutDigits:
    """The digits of the files t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte.

    Attributes:
        per_call: Digits in one call: so many that no call is split, and each has one version.
    """

    per_call = MAX_IMAGES_PER_CALL

    def __init__(self, folder: str, model: ModelInfo) -> None:
        """Reads and verifies the files: 8 MB.

        Args:
            folder: That which holds them, gzip or not.
            model: What is to be asked.

        Raises:
            InvalidRequest: A file is missing or damaged, or the model takes other pictures, or
                knows other labels.
        """
        _check(folder, model)
        try:
            contents = mnist_files.read_folder(Path(folder), HELD_OUT)
            images, labels = (
                mnist_files.verified(file, contents[file.name], f"{folder}: {file.name}")
                for file in HELD_OUT
            )
        except DatasetError as error:
            raise InvalidRequest(str(error)) from error
        self._images = images[..., None]
        self._labels = [_LABELS[label] for label in labels]

    def pictures(self) -> range:
        """Returns the places of all digits."""
        return range(len(self._labels))

    def verdicts(
        self, caller: PatientCaller, question: Question, at_once: int
    ) -> Generator[Verdict, None, None]:
        """Asks about the digits and yields what became of each, in order.

        Args:
            caller: Asks the server.
            question: What is asked.
            at_once: Calls sent and not yet answered.

        Raises:
            ConvserveError: What would befall the next call as well.
        """

        def judge(start: int) -> list[Verdict]:
            places = self.pictures()[start : start + self.per_call]
            pixels = self._images[places.start : places.stop]

            def ask(client: Client, timeout_s: float) -> Classification:
                return client.classify(
                    pixels,
                    model=question.model,
                    version=question.version,
                    top_k=question.top_k,
                    timeout=timeout_s,
                )

            try:
                answer = caller.ask(ask)
            except OF_ONE_FILE as error:
                trouble = Trouble.of(error)
                return [Verdict(_name(each), self._labels[each], trouble) for each in places]
            return [
                Verdict.of(_name(each), self._labels[each], answer, each - start) for each in places
            ]

        starts = self.pictures()[:: self.per_call]
        judged = in_order(judge, starts, at_once=at_once, abandon=caller.close)
        with closing(judged):
            for verdicts in judged:
                yield from verdicts


def _check(folder: str, model: ModelInfo) -> None:
    count, *shape = TEST_IMAGES.shape
    height, width, channels = model.input_shape
    digits = f"{folder} holds MNIST's {count:,} held-out digits of {shape[0]} x {shape[1]} pixels"
    if model.input_shape != (*shape, 1):
        raise InvalidRequest(
            f"{digits}, and {model.name} takes pictures of {height} x {width} x {channels}"
        )
    if missing := [label for label in _LABELS if label not in model.labels]:
        raise InvalidRequest(
            f"{digits}, and {model.name} has no label {missing[0]}; its labels are"
            f" {', '.join(model.labels)}"
        )


def _name(place: int) -> str:
    return f"{TEST_IMAGES.name}[{place}]"
