"""Batch normalisation by TensorFlow's fused kernel, which halves its cost on a CPU.

Keras computes it from single operations, and so does this on other backends. In inference both are
the same, and so are their weights.
This module imports Keras.
"""

from typing import Any

from convserve_trainer.nets import keras_backend

keras = keras_backend.load()


@keras.saving.register_keras_serializable("convserve")
class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc, name-defined]
    """Batch normalisation of [N, H, W, C] over all but the channels; Ioffe and Szegedy 2015.

    The moving variance is that of the population (Bessel's correction), as in TensorFlow 1; that of
    the batch on other backends, as Keras's.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """See keras.layers.BatchNormalization."""
        fused = keras_backend.chosen() == "tensorflow"
        if not (training and self.trainable and fused):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = keras_backend.tensorflow().compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs
