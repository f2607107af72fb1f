"""What a step's loss compares the net's answers with, beside the labels of its pictures.

The layer `Mixing` of a net knows, within a step, which pictures it made: their labels are mixed as
they are, and teachers answer them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from convserve_trainer.nets import keras_backend, teachers
from convserve_trainer.nets.teachers import Teachers
from convserve_trainer.recipes.distillation import Distillation

if TYPE_CHECKING:
    import keras


class Lesson(NamedTuple):
    """How a net is taught.

    Attributes:
        teachers: whose answers it learns.
        settings: how much they count.
    """

    teachers: Teachers
    settings: Distillation


@contextmanager
def given(model: "keras.Model", lesson: Lesson | None) -> Iterator[None]:
    """Makes the loss of the model that of mixed labels and of teachers, while a step is traced."""
    from convserve_trainer.nets.mixing import Mixing

    layers = [layer for layer in model.layers if isinstance(layer, Mixing)]
    if not layers:
        yield
        return
    [mixing], labels_alone = layers, model.compute_loss

    def compute_loss(
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        weights = mixing.mixed(sample_weight)
        loss = labels_alone(x, mixing.mixed(y), y_pred, weights, training=training)
        if lesson is None:
            return loss
        share = lesson.settings.share
        taught = _taught(lesson, mixing.pictures, y_pred)
        return (1 - share) * loss + share * taught

    model.compute_loss = compute_loss
    try:
        yield
    finally:
        model.compute_loss = labels_alone


def _taught(lesson: Lesson, pictures: Any, answers: Any) -> Any:
    """Returns the mean cross-entropy of the teachers' answers and the net's, nats."""
    ops, temperature = keras_backend.load().ops, lesson.settings.temperature
    soft = ops.stop_gradient(lesson.teachers.answers(pictures))
    return -(temperature**2) * ops.mean(
        ops.sum(soft * teachers.softened(answers, temperature), axis=-1)
    )
