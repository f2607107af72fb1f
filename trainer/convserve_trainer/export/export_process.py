"""The export of a net that another backend has: by TensorFlow, in a process of its own.

    python -m convserve_trainer.export.export_process FOLDER

A process has one backend, and the way to ONNX goes through TensorFlow.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from convserve_host import os_errors
from convserve_trainer.errors import USER_ERRORS, ExportError
from convserve_trainer.export import tensorflow_export
from convserve_trainer.nets import keras_file

if TYPE_CHECKING:
    import keras

NET = "net.onnx"


def converted(model: "keras.Model") -> onnx.ModelProto:
    """Returns the net as `tensorflow_export.converted` makes it.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K], of any backend.

    Raises:
        ExportError: the process failed, or the file system refuses.
    """
    content = keras_file.content(model)
    # GPUs are left to the process that trains: TensorFlow takes all the memory that it finds.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        try:
            Path(folder, keras_file.NAME).write_bytes(content)
        except OSError as error:
            raise tensorflow_export.cannot_write(folder, error) from error
        command = [sys.executable, "-m", "convserve_trainer.export.export_process", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise ExportError(f"TensorFlow cannot export the net: {said[-1]}")
        return onnx.load(Path(folder, NET))


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts net.keras in a folder to net.onnx beside it; returns the exit status.

    Args:
        arguments: the folder; None for the process's own.
    """
    [folder] = sys.argv[1:] if arguments is None else arguments
    target = Path(folder, NET)
    try:
        onnx.save(tensorflow_export.converted(keras_file.load(target)), target)
    except USER_ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(os_errors.described(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
