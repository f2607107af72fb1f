"""Many steps of a Keras model in one call: what of the training is TensorFlow's alone.

Each step is the model's own (`train_step`, `test_step`), with all that its compiled optimizer, loss
and layers do: slots, schedules, averages, random states, statistics of normalizations. One traced
graph serves every number of steps and every size of a batch, so that neither changes a bit of what
is computed.

Source: https://www.tensorflow.org/api_docs/python/tf/map_fn, https://keras.io/api/models/model/.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_trainer.fitting import step_parts, targets
from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.fitting.steps import MEANS, RATE, Arrays, Figures
from convserve_trainer.fitting.targets import Lesson
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

Traced: TypeAlias = Callable[..., Mapping[str, Any]]


class Steps:
    """Steps of a compiled model.

    Args:
        model: takes uint8 [N, H, W, C] and has the metric "accuracy".
        chunker: measures how long the steps of the training take.
        class_weights: float32 [K], what a picture of each class counts in training; None for all
            the same.
        parts: of each batch that is trained on, computed at the same time.
        lesson: of teachers; None without them.
    """

    def __init__(
        self,
        model: "keras.Model",
        chunker: StepChunker,
        class_weights: npt.NDArray[np.float32] | None = None,
        parts: int = 1,
        lesson: Lesson | None = None,
    ) -> None:
        self.chunker = chunker
        self.class_weights = class_weights
        self._model = model
        self._parts = parts
        self._lesson = lesson
        weighted = class_weights is not None
        self._train = {
            number: _traced(model, partial(self._train_step, number), (*MEANS, RATE), weighted)
            for number in {1, parts}
        }
        self._test = _traced(model, model.test_step, MEANS, weighted=False)

    def train(self, batches: Sequence[Arrays]) -> list[Figures]:
        """Trains on batches of one size, in order; returns the figures of each.

        With class weights each batch has a third array: what its pictures count.
        """
        started = time.perf_counter()
        parts = self._parts if len(batches[0][0]) >= self._parts else 1  # of which none is empty
        figures = self._run(self._train[parts], batches)
        self.chunker.record(len(batches), time.perf_counter() - started)
        return figures

    def test(self, batches: Sequence[Arrays]) -> list[Figures]:
        """Returns the figures of batches of one size; changes nothing that is trained."""
        return self._run(self._test, batches)

    def _run(self, steps: Traced, batches: Sequence[Arrays]) -> list[Figures]:
        self._model.reset_metrics()
        found = steps(*(np.stack(part) for part in zip(*batches, strict=True)))
        columns = (figures.numpy().tolist() for figures in found.values())
        return [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]

    def _train_step(self, parts: int, batch: tuple[Any, ...]) -> dict[str, Any]:
        rate = keras_backend.tensorflow().identity(self._model.optimizer.learning_rate)
        with step_parts.together(self._model, parts), targets.given(self._model, self._lesson):
            figures: dict[str, Any] = self._model.train_step(batch)
        return {**figures, RATE: rate}


def _traced(
    model: "keras.Model",
    step: Callable[[tuple[Any, ...]], dict[str, Any]],
    names: tuple[str, ...],
    weighted: bool,
) -> Traced:
    """Returns a function of stacked batches, uint8 [S, N, H, W, C] and float32 [S, N, K].

    If it is weighted, it takes float32 [S, N], too.
    It returns the figures of these names, float32 [S] each.
    """
    tensorflow = keras_backend.tensorflow()

    def one(batch: tuple[Any, ...]) -> dict[str, Any]:
        figures = step(batch)
        found = {name: tensorflow.identity(figures[name]) for name in names}
        for metric in model.metrics:  # the first step, when it is traced, makes some of them
            metric.reset_state()
        return found

    def every(*batches: Any) -> Any:
        figures = dict.fromkeys(names, tensorflow.TensorSpec((), tensorflow.float32))
        return tensorflow.map_fn(one, batches, parallel_iterations=1, fn_output_signature=figures)

    signature = [
        tensorflow.TensorSpec((None, *model.input_shape), tensorflow.uint8),
        tensorflow.TensorSpec((None, *model.output_shape), tensorflow.float32),
        tensorflow.TensorSpec((None, None), tensorflow.float32),
    ]
    signature = signature if weighted else signature[:2]
    traced: Traced = tensorflow.function(every, input_signature=signature, autograph=False)
    return traced
