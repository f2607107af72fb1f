"""The steps of the backend that Keras has. Beside steps.py, which both backends import."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.fitting.steps import Steps
from convserve_trainer.fitting.targets import Lesson
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

    from convserve_trainer.nets.process_group import Group


def make_steps(
    model: "keras.Model",
    chunker: StepChunker,
    class_weights: npt.NDArray[np.float32] | None = None,
    parts: int = 1,
    group: "Group | None" = None,
    lesson: Lesson | None = None,
) -> Steps:
    """Returns the steps of a model; see `Steps` for the arguments.

    Args:
        model: compiled, takes uint8 [N, H, W, C] and has the metric "accuracy".
        chunker: see there.
        class_weights: see there.
        parts: of each batch that is trained on, computed at the same time by TensorFlow.
        group: of processes that train together, by JAX; None for one alone.
        lesson: of teachers; None without them.
    """
    if keras_backend.chosen() == "jax":
        from convserve_trainer.fitting import jax_steps

        return jax_steps.Steps(model, chunker, class_weights, group, lesson)
    from convserve_trainer.fitting import tensorflow_steps

    return tensorflow_steps.Steps(model, chunker, class_weights, parts, lesson)
