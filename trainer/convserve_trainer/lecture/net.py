"""The user's net: what its bundle says of it, and the ways into it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle
from convserve_bundle.manifest import is_softmax
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, IMAGE_KIND_PHOTO, ImageKind, Manifest
from convserve_trainer.bundles import bundle
from convserve_trainer.evaluation.predict import by_keras
from convserve_trainer.nets import keras_backend, keras_file

if TYPE_CHECKING:
    import keras

BATCH = 500
WANTED = {
    IMAGE_KIND_DIGITS: ("digits", "a net for photographs goes with --photos"),
    IMAGE_KIND_PHOTO: ("photo", "a net for digits is the command's first argument"),
}


@dataclass(frozen=True)
class Net:
    """A net with its layers.

    Attributes:
        file: its model.onnx.
        manifest: what that says.
        model: the same net in Keras, uint8 [N, H, W, C] in, not compiled.
    """

    file: Path
    manifest: Manifest
    model: "keras.Model"

    @cached_property
    def from_floats(self) -> "keras.Model":
        """The net with float32 as its input, 0 to 255: integers have no gradient."""
        keras = keras_backend.load()
        whole = keras.Model(self.model.inputs[0], self.model.outputs[0])
        floats = keras.Input(whole.inputs[0].shape[1:], dtype="float32", name="floats")
        copy = keras.models.clone_model(whole, input_tensors=floats)
        copy.set_weights(whole.get_weights())
        return copy

    @property
    def convolutions(self) -> "list[keras.Layer]":
        """Its convolutions, in their order."""
        return layers_of_type(self.model, "Conv2D")

    def upto(self, *layers: str, floats: bool = False) -> "keras.Model":
        """Returns the net up to a layer, or a list with an output for each of several.

        Args:
            layers: their names.
            floats: whether it takes float32.
        """
        keras = keras_backend.load()
        whole = self.from_floats if floats else self.model
        outputs = [whole.get_layer(name).output for name in layers]
        return keras.Model(whole.inputs[0], outputs if len(outputs) > 1 else outputs[0])

    def maps(self, layer: str, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns what a layer makes of pictures, float32 [N, H, W, F] for a convolution."""
        return np.asarray(self.upto(layer)(pixels, training=False))

    def answers(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns its probabilities, float32 [N, K]; a sigmoid's as two columns."""
        return columns(predict(self.model, pixels))


def layers_of_type(model: "keras.Model", *kinds: str) -> "list[keras.Layer]":
    """Returns the layers of these types, in their order."""
    return [layer for layer in model.layers if type(layer).__name__ in kinds]


def predict(model: "keras.Model", pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns a net's probabilities, float32 [N, K] or [N, 1]; one picture or more.

    To set up Keras's own predict costs as much as hundreds of digits, and here it is asked often.
    """
    starts = range(0, len(pixels), BATCH)
    return np.concatenate([by_keras(model, pixels[start : start + BATCH]) for start in starts])


def columns(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns float32 [N, K], two columns for float32 [N, 1] of a sigmoid."""
    if probabilities.shape[1] > 1:
        return probabilities
    return np.concatenate([1 - probabilities, probabilities], axis=1)


def load(path: Path, kind: ImageKind.ValueType) -> Net:
    """Returns the net of a bundle.

    Args:
        path: of model.onnx, its version folder, or the model's folder (the newest version).
        kind: of pictures that it must take.

    Raises:
        BundleError: there is no bundle, it takes other pictures, or has no net.keras beside it.
    """
    file = find_bundle(path)
    manifest = bundle.read_manifest(file)
    if manifest.input.kind != kind:
        found = ImageKind.Name(manifest.input.kind).removeprefix("IMAGE_KIND_").lower()
        expected, advice = WANTED[kind]
        raise BundleError(f"{file}: input.kind: expected {expected}, got {found}; {advice}")
    if not is_softmax(manifest):
        raise BundleError(f"{file}: output: expected one label a picture, got several labels")
    return Net(file, manifest, keras_file.load(file))


def weights(layer: "keras.Layer") -> npt.NDArray[Any]:
    """Returns the kernel of a convolution, float32 [rows, columns, in, out]."""
    kernel: npt.NDArray[Any] = layer.get_weights()[0]
    return kernel
