"""What a caller gets back: a Classification holds a Result for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from convserve.arguments import validate_int
from convserve.errors import ConvserveError


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class and how probable it is.

    Attributes:
        label: Name of the class.
        probability: 0 to 1.
    """

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a request went, in microseconds.

    Attributes:
        queue_us: Waiting in the server; of several calls the longest.
        decode_us: Decoding in the server; of several calls the sum. 0 for pixels.
        compute_us: In the server's engine; of several calls the sum.
        total_us: From the first byte sent to the last answer, as the client saw it.
        calls: Number of calls that the images were split into.
    """

    queue_us: int
    decode_us: int
    compute_us: int
    total_us: int
    calls: int


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What became of one image: an answer, or an error that reading the answer raises.

    Attributes:
        labels: All labels of the model.
        classes: Integers [k]: the index in labels of each of the probabilities.
        probabilities: float32 [k], 0 to 1: of all classes in the order of the labels; with top_k of
            the k most probable ones, most probable first. NaN if there is an error.
        error: Why this image has no answer, or None.
        above_threshold: Of a model whose images have several labels, those of this image, most
            probable first, perhaps none; None for other models.
    """

    labels: tuple[str, ...]
    classes: npt.NDArray[np.intp]
    probabilities: npt.NDArray[np.float32]
    error: ConvserveError | None = None
    above_threshold: tuple[ClassScore, ...] | None = None

    @property
    def index(self) -> int:
        """Index in labels of the most probable class. Raises the image's error if it has one."""
        return int(self.classes[self._best()])

    @property
    def label(self) -> str:
        """Label of the most probable class. Raises the image's error if it has one."""
        return self.labels[self.index]

    @property
    def probability(self) -> float:
        """Probability of that class, 0 to 1. Raises the image's error if it has one."""
        return float(self.probabilities[self._best()])

    @property
    def assigned(self) -> tuple[ClassScore, ...]:
        """The labels that the image has, most probable first. Raises the image's error if any.

        Where images have several labels they are those whose probability reaches their threshold,
        and there may be none; otherwise it is the most probable one alone.
        """
        best = self._best()
        if self.above_threshold is not None:
            return self.above_threshold
        label = self.labels[self.classes[best]]
        return (ClassScore(label, float(self.probabilities[best])),)

    def top(self, k: int | None = None) -> tuple[ClassScore, ...]:
        """Returns the k most probable classes, most probable first; all that there are for None.

        Raises:
            InvalidRequest: k is not an integer from 1 to the number of classes that were asked for.
            ConvserveError: The image's error, if it has one.
        """
        self._best()
        there = len(self.probabilities)
        if k is not None:
            k = validate_int("k", k, 1, there)
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return tuple(
            ClassScore(self.labels[self.classes[column]], float(self.probabilities[column]))
            for column in order
        )

    def _best(self) -> int:
        if self.error is not None:
            raise self.error
        return int(self.probabilities.argmax())

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Result {self.error!r}>"
        if self.above_threshold is not None:
            scores = [f"{one.label!r} {one.probability:.4f}" for one in self.above_threshold]
            return f"<Result {', '.join(scores) or 'without a label'}>"
        return f"<Result {self.label!r} {self.probability:.4f}>"


@dataclass(frozen=True, slots=True, eq=False)
class Classification(Sequence[Result]):
    """The results of all images of a request, in their order.

    A sequence of Result; of a single image it also answers like that image's Result, so both
    `client.classify(digit).label` and `[one.label for one in client.classify(digits)]` work.

    Attributes:
        model: Name of the model that answered.
        versions: Versions that answered, newest first: one, unless the server switched to a new
            version between two calls of a large request. Empty if each image was in a call of its
            own and none could be decoded.
        labels: All labels of the model, in the order of its columns; empty if versions is.
        probabilities: float32 [N, k], 0 to 1; k is the number of labels, or top_k. A row is NaN if
            its image has an error.
        classes: Integers [N, k]: the index in labels of each of the probabilities.
        errors: The images that have no answer, by their index.
        timings: Where the time went.
        thresholds: Of a model whose images have several labels, 0 to 1, in the order of the labels:
            an image has each label whose probability is this or more. Empty for other models.
        above_threshold: The labels of each image so, most probable first; empty for other models.
    """

    model: str
    versions: tuple[int, ...]
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    classes: npt.NDArray[np.intp]
    errors: Mapping[int, ConvserveError]
    timings: Timings
    thresholds: tuple[float, ...] = ()
    above_threshold: Sequence[tuple[ClassScore, ...]] = ()

    @property
    def version(self) -> int:
        """The version that answered, the newest of several. Raises an image's error for none."""
        if not self.versions:
            raise self.errors[0]
        return self.versions[0]

    @property
    def indices(self) -> npt.NDArray[np.intp]:
        """Integers [N]: index in labels of each image's most probable class, -1 for an error."""
        if not self.labels:
            return np.full(len(self), -1)
        failed = np.isnan(self.probabilities[:, 0])
        best = np.where(failed[:, np.newaxis], 0, self.probabilities).argmax(axis=1)
        found = np.take_along_axis(self.classes, best[:, np.newaxis], axis=1)[:, 0]
        return np.where(failed, -1, found)

    @property
    def label(self) -> str:
        """Label of the only image. Raises ValueError if there are several, or the image's error."""
        return self._only().label

    @property
    def probability(self) -> float:
        """Probability of the only image's label, 0 to 1. Raises as label does."""
        return self._only().probability

    @property
    def assigned(self) -> tuple[ClassScore, ...]:
        """The labels that the only image has; see Result.assigned. Raises as label does."""
        return self._only().assigned

    def top(self, k: int | None = None) -> tuple[ClassScore, ...]:
        """Returns the k most probable classes of the only image. Raises as label does."""
        return self._only().top(k)

    def _only(self) -> Result:
        if len(self) != 1:
            raise ValueError(f"expected one image, got {len(self)}: choose one, as in results[0]")
        return self[0]

    def __len__(self) -> int:
        return len(self.probabilities)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        indices = range(len(self))[index]
        if isinstance(indices, range):
            return tuple(self._at(each) for each in indices)
        return self._at(indices)

    def __iter__(self) -> Iterator[Result]:
        return (self._at(index) for index in range(len(self)))

    def _at(self, index: int) -> Result:
        return Result(
            self.labels,
            self.classes[index],
            self.probabilities[index],
            self.errors.get(index),
            self.above_threshold[index] if self.thresholds else None,
        )

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} failed" if self.errors else ""
        version = self.versions[0] if self.versions else "?"
        return f"<Classification of {len(self)} by {self.model}/{version}{failed}>"
