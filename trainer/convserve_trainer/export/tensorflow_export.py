"""The way from Keras to ONNX, which goes through TensorFlow."""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from convserve_bundle.contract import INPUT
from convserve_host import os_errors
from convserve_trainer.errors import ExportError
from convserve_trainer.export.contract import OPSET
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras


def converted(model: "keras.Model") -> onnx.ModelProto:
    """Returns the net as the converters leave it.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K], of Keras on TensorFlow.

    Raises:
        ExportError: the file system refuses.
    """
    keras = keras_backend.load()
    signature = [keras.InputSpec(shape=model.input_shape, dtype="uint8", name=INPUT)]
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder, warnings.catch_warnings():
        # Keras looks whether NumPy still has this alias, for tf2onnx.
        warnings.filterwarnings("ignore", r"In the future `np\.object`", FutureWarning)
        path = Path(folder) / "model.onnx"
        try:
            model.export(
                path, format="onnx", verbose=False, input_signature=signature, opset_version=OPSET
            )
            return onnx.load(path)
        except OSError as error:
            raise cannot_write(folder, error) from error


def cannot_write(folder: str, error: OSError) -> ExportError:
    """Returns the error of an export that gets no room for its files."""
    return ExportError(
        f"the export cannot write to {folder}: {os_errors.reason(error)}, or name another folder "
        "with TMPDIR"
    )
