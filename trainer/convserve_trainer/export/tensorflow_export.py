"""From Keras to ONNX as the converters do it, through TensorFlow.

    python -m convserve_trainer.export.tensorflow_export FOLDER

A process has one backend: where that is not TensorFlow, the conversion is done in another process,
which reads net.keras in FOLDER and writes net.onnx beside it.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from convserve_bundle.contract import INPUT
from convserve_host import os_errors
from convserve_trainer.errors import USER_ERRORS, ExportError
from convserve_trainer.export.contract import OPSET
from convserve_trainer.nets import keras_backend, keras_file

if TYPE_CHECKING:
    import keras

NET = "net.onnx"


def convert(model: "keras.Model") -> onnx.ModelProto:
    """Returns the net as the converters leave it.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K], of any backend.

    Raises:
        ExportError: the other process failed, or the file system refuses.
    """
    return convert_here(model) if keras_backend.chosen() == "tensorflow" else _elsewhere(model)


def convert_here(model: "keras.Model") -> onnx.ModelProto:
    """Returns the same of a net of Keras on TensorFlow, whose process this is.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K].

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
            raise _cannot_write(folder, error) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts net.keras in a folder to net.onnx beside it; returns the exit status.

    Args:
        arguments: the folder; None for the process's own.
    """
    [folder] = sys.argv[1:] if arguments is None else arguments
    target = Path(folder, NET)
    try:
        onnx.save(convert_here(keras_file.load(target)), target)
    except USER_ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(os_errors.described(error), file=sys.stderr)
        return 1
    return 0


def _elsewhere(model: "keras.Model") -> onnx.ModelProto:
    """Returns the same, converted by a process of its own."""
    content = keras_file.content(model)
    # GPUs are left to the process that trains: TensorFlow takes all the memory that it finds.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        try:
            Path(folder, keras_file.NAME).write_bytes(content)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        command = [sys.executable, "-m", "convserve_trainer.export.tensorflow_export", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it printed nothing"]
            raise ExportError(f"TensorFlow cannot export the net: {lines[-1]}")
        return onnx.load(Path(folder, NET))


def _cannot_write(folder: str, error: OSError) -> ExportError:
    """Returns the error of an export that cannot write its files."""
    return ExportError(
        f"the export cannot write to {folder}: {os_errors.reason(error)}, or name another folder "
        "with TMPDIR"
    )


if __name__ == "__main__":
    sys.exit(main())
