"""The held-out pictures of IDX files, MNIST's or those of another data set, sent as pixels."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convserve.calls import ClassifyOptions
from convserve.client import Client
from convserve.command.file_outcomes import OF_ONE_FILE, Trouble
from convserve.command.in_order import in_order
from convserve.command.retrying_caller import RetryingCaller
from convserve.command.score import Verdict
from convserve.errors import InvalidRequest
from convserve.models import ModelInfo
from convserve.results import Classification
from convserve.settings import MAX_IMAGES_PER_CALL
from convserve_imaging import idx_files, mnist_files
from convserve_imaging.errors import DatasetError
from convserve_imaging.mnist_files import HELD_OUT, TEST_IMAGES

Pixels = npt.NDArray[np.uint8]

_LABELS = [str(digit) for digit in range(10)]


class HeldOutIdx:
    """The pictures of the files t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte.

    A model of pixels is asked about whatever is in them, any other about MNIST's digits.

    Attributes:
        per_call: Pictures in one call: so many that no call is split, and each has one version.
    """

    per_call = MAX_IMAGES_PER_CALL

    def __init__(self, folder: str, model: ModelInfo) -> None:
        """Reads the files, and verifies MNIST's: 8 MB.

        Args:
            folder: That which holds them, gzip or not.
            model: What is to be asked.

        Raises:
            InvalidRequest: A file is missing or damaged, or the model expects other pictures, or
                knows other labels.
        """
        try:
            if model.kind == "pixels":
                self._images, self._labels = _of_its_own(folder, model)
            else:
                self._images, self._labels = _of_mnist(folder, model)
        except DatasetError as error:
            raise InvalidRequest(str(error)) from error

    def pictures(self) -> range:
        """Returns the indices of all pictures."""
        return range(len(self._labels))

    def verdicts(
        self, caller: RetryingCaller, options: ClassifyOptions, at_once: int
    ) -> Generator[Verdict, None, None]:
        """Asks about the pictures and yields what became of each, in order.

        Args:
            caller: Asks the server.
            options: What is asked.
            at_once: Calls sent and not yet answered.

        Raises:
            ConvserveError: What would happen to the next call as well.
        """

        def judge(start: int) -> list[Verdict]:
            indices = self.pictures()[start : start + self.per_call]
            pixels = self._images[indices.start : indices.stop]

            def ask(client: Client, timeout_s: float) -> Classification:
                return client.classify(
                    pixels,
                    model=options.model,
                    version=options.number,
                    label=options.label,
                    top_k=options.top_k,
                    timeout=timeout_s,
                )

            try:
                answer = caller.ask(ask)
            except OF_ONE_FILE as error:
                trouble = Trouble.of(error)
                return [Verdict(_name(each), self._labels[each], trouble) for each in indices]
            return [
                Verdict.of(_name(each), self._labels[each], answer, each - start)
                for each in indices
            ]

        starts = self.pictures()[:: self.per_call]
        judged = in_order(judge, starts, at_once=at_once, abandon=caller.close)
        with closing(judged):
            for verdicts in judged:
                yield from verdicts


def _of_its_own(folder: str, model: ModelInfo) -> tuple[Pixels, list[str]]:
    """Returns the pictures of any data set, with the labels that the model has for their numbers.

    Raises:
        DatasetError: A file is missing or damaged.
        InvalidRequest: The model expects pictures of another size, or has fewer labels.
    """
    found = idx_files.read_pair(Path(folder), idx_files.HELD_OUT)
    if (shape := found.images.shape[1:]) != model.input_shape:
        raise InvalidRequest(
            f"{folder}: expected pictures of {_times(model.input_shape)} for model {model.name},"
            f" got {_times(shape)}"
        )
    found = found.numbered_from(idx_files.first_label(found.labels, model.labels))
    if (highest := int(found.labels.max())) >= len(model.labels):
        raise InvalidRequest(
            f"{folder}: expected labels of 0 to {len(model.labels) - 1} for model {model.name}"
            f" ({', '.join(model.labels)}), got {highest}"
        )
    return found.images, [model.labels[label] for label in found.labels]


def _of_mnist(folder: str, model: ModelInfo) -> tuple[Pixels, list[str]]:
    """Returns MNIST's digits, verified.

    Raises:
        DatasetError: A file is missing or damaged.
        InvalidRequest: The model expects other pictures, or knows other labels.
    """
    _check(folder, model)
    contents = mnist_files.read_folder(Path(folder), HELD_OUT)
    images, labels = (
        mnist_files.verified(file, contents[file.name], f"{folder}: {file.name}")
        for file in HELD_OUT
    )
    return images[..., None], [_LABELS[label] for label in labels]


def _check(folder: str, model: ModelInfo) -> None:
    count, *shape = TEST_IMAGES.shape
    digits = f"MNIST's {count:,} held-out digits of {shape[0]} x {shape[1]} x 1"
    if model.input_shape != (*shape, 1):
        raise InvalidRequest(
            f"{folder}: expected pictures of {_times(model.input_shape)} for model {model.name},"
            f" got {digits}"
        )
    if missing := [label for label in _LABELS if label not in model.labels]:
        raise InvalidRequest(
            f"{folder}: expected labels of model {model.name} ({', '.join(model.labels)}), got"
            f" {missing[0]} in {digits}"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _name(index: int) -> str:
    return f"{TEST_IMAGES.name}[{index}]"
