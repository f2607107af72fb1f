"""A step in parts: the pictures of a batch are passed through the net in parts at the same time.

Small pictures make small convolutions: cut among threads, each waits for the others more than it
computes. Parts of the batch, a thread each, do not meet until the loss, which is that of the whole
batch; so are the gradients, summed over the parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.nets import keras_backend
from convserve_trainer.nets.keras_backend import Threads
from convserve_trainer.recipes.layers import Backbone, Conv, Residual
from convserve_trainer.recipes.recipe import Recipe

if TYPE_CHECKING:
    import keras

LARGEST = 64 * 64  # pixels of a picture; the convolutions of larger ones keep several threads busy
LEAST = 8  # pictures of a part


def suitable(recipe: Recipe, spec: InputSpec, threads: int) -> Threads:
    """Returns how the threads should be used for a training.

    Args:
        recipe: of it.
        spec: of one picture.
        threads: that can compute at once, 1 or more.
    """
    # The statistics of a batch normalisation are those of the whole batch.
    normalised = any(
        isinstance(layer, Backbone | Residual) or isinstance(layer, Conv) and layer.norm == "batch"
        for layer in recipe.net
    )
    # Who mixes pictures, and who teaches, sees the whole batch, too.
    if normalised or recipe.mixing or spec.height * spec.width > LARGEST:
        return Threads()
    parts = max(1, min(threads, recipe.batch_size // LEAST))
    return Threads() if parts == 1 else Threads(parts, max(1, threads // parts))


@contextmanager
def together(model: "keras.Model", parts: int) -> Iterator[None]:
    """Passes each batch that the model is called with through it in parts."""
    ops, whole = keras_backend.load().ops, model.call

    def call(pixels: Any, *arguments: Any, **named: Any) -> Any:
        count = ops.shape(pixels)[0]
        ends = [count * part // parts for part in range(parts + 1)]
        outputs = [
            whole(pixels[begin:end], *arguments, **named)
            for begin, end in zip(ends, ends[1:], strict=False)
        ]
        return ops.concatenate(outputs)

    if parts > 1:
        model.call = call
    try:
        yield
    finally:
        model.call = whole
