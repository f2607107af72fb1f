"""Nets that teach another one: found, checked, and asked within its steps."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_bundle.folder import find_bundle
from convserve_bundle.manifest import read_manifest
from convserve_bundle.onnx_metadata import read_metadata
from convserve_host import os_errors
from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.errors import UsageError
from convserve_trainer.nets import keras_backend, keras_file

if TYPE_CHECKING:
    import keras

    from convserve_trainer.recipes.distillation import Distillation

SETTING = "distillation.teachers"
DIGEST = 12  # hexadecimal digits


class Teachers:
    """Nets that are not trained, and the mean of their answers.

    Args:
        nets: one or more, each uint8 [N, H, W, C] to float32 [N, K], or [N, 1] for a sigmoid.
        temperature: by which their logits are divided.
    """

    def __init__(self, nets: Sequence["keras.Model"], temperature: float) -> None:
        self._nets = nets
        self._temperature = temperature

    def answers(self, pictures: Any) -> Any:
        """Returns float32 [N, K], rows sum to 1; of two classes both.

        Args:
            pictures: float32 [N, H, W, C], 0 to 1; a teacher gets them as the bytes of a picture.
        """
        ops = keras_backend.load().ops
        pixels = ops.cast(ops.round(ops.clip(pictures * 255, 0, 255)), "uint8")
        found = [softened(net(pixels, training=False), self._temperature) for net in self._nets]
        return ops.exp(found[0]) if len(found) == 1 else sum(map(ops.exp, found)) / len(found)


def softened(probabilities: Any, temperature: float) -> Any:
    """Returns logarithms of probabilities whose logits are divided by a temperature.

    Args:
        probabilities: float32 [N, K], rows sum to 1, or [N, 1], those of the second of two classes.
        temperature: above 0.

    Returns:
        float32 [N, K], or [N, 2].
    """
    keras = keras_backend.load()
    ops = keras.ops
    if probabilities.shape[-1] == 1:
        probabilities = ops.concatenate([1 - probabilities, probabilities], axis=-1)
    logits = ops.log(ops.maximum(probabilities, keras.config.epsilon()))
    return ops.log_softmax(logits / temperature, axis=-1)


def files(distillation: "Distillation") -> list[Path]:
    """Returns the file net.keras of each teacher.

    Raises:
        UsageError: there is none.
        BundleError: there is a folder, but no bundle in it.
    """
    found = []
    for name in distillation.teachers:
        path = Path(name)
        if not path.exists():
            raise UsageError(f"{SETTING}: expected a bundle, got {name}, which is not there")
        if path.suffix != ".keras":
            path = find_bundle(path).with_name(keras_file.NAME)
        if not path.is_file():
            raise UsageError(f"{SETTING}: expected a bundle with {keras_file.NAME}, got {name}")
        found.append(path)
    return found


def digests(distillation: "Distillation") -> list[str]:
    """Returns the beginning of the SHA-256 of each teacher's file, wherever it lies.

    Raises:
        UsageError: one cannot be read.
    """
    found = []
    for path in files(distillation):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{SETTING}: {path}: {os_errors.reason(error)}") from error
        found.append(hashlib.sha256(content).hexdigest()[:DIGEST])
    return found


def load(distillation: "Distillation", spec: InputSpec, labels: Sequence[str]) -> Teachers | None:
    """Returns the teachers; None where there are none.

    Args:
        distillation: names them.
        spec: of one picture of the training.
        labels: names of its classes.

    Raises:
        UsageError: one takes other pictures, or knows other classes.
        BundleError: one is damaged.
    """
    if not distillation.teachers:
        return None
    nets = []
    for name, path in zip(distillation.teachers, files(distillation), strict=True):
        net = keras_file.read(path)
        size, classes = (spec.height, spec.width, spec.channels), len(labels)
        if net.input_shape[1:] != size:
            raise UsageError(
                f"{SETTING}: expected nets of pictures of {_shown(size)}, got {name} of "
                f"{_shown(net.input_shape[1:])}"
            )
        if max(net.output_shape[-1], 2) != classes:
            raise UsageError(
                f"{SETTING}: expected nets of {classes} classes, got {name} of "
                f"{max(net.output_shape[-1], 2)}"
            )
        if Path(name).suffix != ".keras":
            known = read_manifest(read_metadata(find_bundle(Path(name)))).labels
            if list(known) != list(labels):
                raise UsageError(
                    f"{SETTING}: expected the classes {', '.join(labels)}, got {name} of "
                    f"{', '.join(known)}"
                )
        net.trainable = False
        nets.append(net)
    return Teachers(nets, distillation.temperature)


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
