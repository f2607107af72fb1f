"""Optimizers that move a part of a net more slowly than the rest.

Keras has one learning rate for all variables. An optimizer makes its step as ever; then the body
goes back, so that only that share of its way is left. That is what a smaller learning rate does, by
weight decay too.
This module imports Keras.

Source: Howard and Ruder 2018, "Universal Language Model Fine-tuning", whose layers have rates of
their own.
"""

from collections.abc import Callable, Sequence
from typing import Any

from convserve_trainer.nets import keras_backend

keras = keras_backend.load()


class _SlowBody:
    """What makes an optimizer of Keras one with a body; it comes before its class.

    Args:
        body: numbers of the variables of the body, in the order of the net's trainable ones.
        body_rate: factor of the learning rate for these, above 0.
        **settings: of the optimizer.
    """

    def __init__(self, body: Sequence[int] = (), body_rate: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.body = tuple(body)
        self.body_rate = body_rate
        self._slow: Callable[[], Sequence[Any]] = tuple

    def build(self, variables: Sequence[Any]) -> None:
        """See keras.optimizers.Optimizer."""
        super().build(variables)  # type: ignore[misc]
        slow = [variables[number] for number in self.body]
        # Not the list: Keras would make its variables the optimizer's own as well.
        self._slow = lambda: slow

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """See keras.optimizers.Optimizer."""
        if not self._slow():  # the first call builds it
            self.build(trainable_variables or ())
        slow = self._slow()
        before = [keras.ops.copy(variable) for variable in slow]
        super().apply(grads, trainable_variables)  # type: ignore[misc]
        for variable, begin in zip(slow, before, strict=True):
            variable.assign(begin + self.body_rate * (variable - begin))

    def get_config(self) -> dict[str, Any]:
        """See keras.optimizers.Optimizer."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        return config | {"body": list(self.body), "body_rate": self.body_rate}


@keras.saving.register_keras_serializable("convserve")
class SlowBodyRMSprop(_SlowBody, keras.optimizers.RMSprop):  # type: ignore[misc, name-defined]
    """RMSprop with a body; see `_SlowBody`."""


@keras.saving.register_keras_serializable("convserve")
class SlowBodyAdam(_SlowBody, keras.optimizers.Adam):  # type: ignore[misc, name-defined]
    """Adam with a body; see `_SlowBody`."""


@keras.saving.register_keras_serializable("convserve")
class SlowBodyAdamW(_SlowBody, keras.optimizers.AdamW):  # type: ignore[misc, name-defined]
    """AdamW with a body; see `_SlowBody`."""


@keras.saving.register_keras_serializable("convserve")
class SlowBodySGD(_SlowBody, keras.optimizers.SGD):  # type: ignore[misc, name-defined]
    """SGD with a body; see `_SlowBody`."""


KINDS = {
    "rmsprop": SlowBodyRMSprop,
    "adam": SlowBodyAdam,
    "adamw": SlowBodyAdamW,
    "sgd": SlowBodySGD,
}
"""By the name in a recipe."""
