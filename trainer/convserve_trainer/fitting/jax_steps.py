"""Many steps of a Keras model in one call: what of the training is JAX's alone.

Each step is the model's own (`train_step`, `test_step`), compiled once for each size of a batch.
JAX returns before a step is done, so that Python starts the next one meanwhile, and waits for the
last alone. It is one program for every step, and not a loop, which would be compiled for each
number of steps anew: so that number changes no bit of what is computed.

Source: https://keras.io/guides/custom_train_step_in_jax/.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_trainer.fitting import targets
from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.fitting.steps import MEANS, RATE, Arrays, Figures
from convserve_trainer.fitting.targets import Lesson
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

    from convserve_trainer.nets.process_group import Group

State: TypeAlias = tuple[list[Any], list[Any], list[Any]]
"""Values of the trainable variables, of the others, and of the optimizer's."""


class Steps:
    """Steps of a compiled model; see `steps.Steps`.

    Args:
        model: takes uint8 [N, H, W, C] and has the metric "accuracy".
        chunker: measures how long the steps of the training take.
        class_weights: float32 [K], what a picture of each class counts in training; None for all
            the same.
        group: of processes that train together: a batch has a part in each, in the order of their
            numbers, and a step is that of the whole batch. None for one process alone.
        lesson: of teachers; None without them.
    """

    def __init__(
        self,
        model: "keras.Model",
        chunker: StepChunker,
        class_weights: npt.NDArray[np.float32] | None = None,
        group: "Group | None" = None,
        lesson: Lesson | None = None,
    ) -> None:
        import jax

        self.chunker = chunker
        self.class_weights = class_weights
        self._model = model
        self._group = group
        self._lesson = lesson
        self._no_means = _unused_metrics(model)
        build_optimizer(model)
        # What goes in is given away: the memory of the old state is that of the new one.
        options: dict[str, Any] = group.jit_options if group else {}
        self._train = jax.jit(self._train_step, donate_argnums=0, **options)
        self._test = jax.jit(self._test_step)

    def train(self, batches: Sequence[Arrays]) -> list[Figures]:
        """Trains on batches of one size, in order; returns the figures of each.

        With class weights each batch has a third array: what its pictures count.
        """
        started = time.perf_counter()
        with self._group.watched() if self._group else nullcontext():
            state, figures = self._shared(self._state()), []
            for batch in batches:
                found, state = self._train(state, self._joined(batch))
                figures.append(found)
            self._keep(state)
            arrived = _arrived(figures)
        self.chunker.record(len(batches), time.perf_counter() - started)
        return arrived

    def test(self, batches: Sequence[Arrays]) -> list[Figures]:
        """Returns the figures of batches of one size; changes nothing that is trained.

        Of several processes each one tests batches of its own.
        """
        trainable, others, _ = self._state()
        figures = [self._test(trainable, others, batch) for batch in batches]
        return _arrived(figures)

    def _variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        model = self._model
        return model.trainable_variables, model.non_trainable_variables, model.optimizer.variables

    def _state(self) -> State:
        trainable, others, slots = (
            [variable.value for variable in variables] for variables in self._variables()
        )
        return trainable, others, slots

    def _shared(self, state: State) -> State:
        """Returns the state as that of all processes."""
        if self._group is None:
            return state
        trainable, others, slots = (self._group.copies(values) for values in state)
        return trainable, others, slots

    def _joined(self, batch: Arrays) -> tuple[Any, ...]:
        """Returns the batch that all processes have a part of."""
        return batch if self._group is None else self._group.parts(batch)

    def _keep(self, state: State) -> None:
        """Gives Keras's variables, which checkpoints are made of, their values."""
        for variables, values in zip(self._variables(), state, strict=True):
            here = values if self._group is None else self._group.here(values)
            for variable, value in zip(variables, here, strict=True):
                variable.assign(value)

    def _train_step(self, state: State, batch: Arrays) -> tuple[dict[str, Any], State]:
        keras, model = keras_backend.load(), self._model
        with keras.StatelessScope(zip(model.optimizer.variables, state[2], strict=True)):
            rate = keras.ops.convert_to_tensor(model.optimizer.learning_rate)
        with targets.given(model, self._lesson):
            figures, (*after, _) = model.train_step((*state, self._no_means), batch)
        trainable, others, slots = after
        return {**_means(figures), RATE: rate}, (trainable, others, slots)

    def _test_step(self, trainable: list[Any], others: list[Any], batch: Arrays) -> dict[str, Any]:
        figures, _ = self._model.test_step((trainable, others, self._no_means), batch)
        return _means(figures)


def build_optimizer(model: "keras.Model") -> None:
    """Makes the optimizer's variables, if that is not done."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _unused_metrics(model: "keras.Model") -> list[Any]:
    """Returns the values that the metrics' variables have before any batch."""
    # Loss and metrics make their parts when they are first used, which no compiled step may do.
    rows = np.zeros((1, *model.output_shape[1:]), np.float32)
    model.compute_loss(y=rows, y_pred=rows)
    model.compute_metrics(None, rows, rows)
    model.reset_metrics()
    return [variable.value for variable in model.metrics_variables]


def _means(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in MEANS}


def _arrived(figures: list[dict[str, Any]]) -> list[Figures]:
    """Returns figures that a device computes, when it has."""
    import jax

    # Raises what went wrong on the device, for want of memory say; reading the figures might abort.
    jax.block_until_ready(figures)  # type: ignore[no-untyped-call]
    return [
        {name: float(value) for name, value in each.items()} for each in jax.device_get(figures)
    ]
