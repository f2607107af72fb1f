"""The net as Keras has it, beside its bundle: an ONNX file has no gradients and no layers."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_bundle.errors import BundleError
from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

NAME = "net.keras"


def content(model: "keras.Model") -> bytes:
    """Returns the content of net.keras: layers and weights, without the optimizer's slots."""
    keras_backend.load()
    copy = type(model).from_config(model.get_config())  # is not compiled, so has no optimizer
    copy.set_weights(model.get_weights())
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        path = Path(folder) / NAME
        copy.save(path)
        return path.read_bytes()


def load(bundle: Path) -> "keras.Model":
    """Returns the net that lies beside a bundle's model.onnx, not compiled.

    Args:
        bundle: the path of model.onnx.

    Raises:
        BundleError: there is none, or it is damaged.
    """
    path = bundle.with_name(NAME)
    if not path.is_file():
        raise BundleError(
            f"{bundle.parent} has no {NAME}, which holds the layers: an older version "
            "published it; train it again with this one (convserve-train fit)"
        )
    return read(path)


def read(path: Path) -> "keras.Model":
    """Returns the net in a file of Keras, not compiled.

    Raises:
        BundleError: it is damaged.
    """
    saving = keras_backend.load().saving
    try:
        model: keras.Model = saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is damaged ({' '.join(str(error).split())})") from error
    return model
