"""Weights that a net can start from, read from a published bundle or a file of Keras.

A .keras file is an archive with the weights in it as HDF5, as they are in a .weights.h5 file. Only
they are read: no layer is made of what a file says, and so no code of a stranger runs.

Source: https://keras.io/guides/serialization_and_saving/.
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle
from convserve_host import os_errors
from convserve_trainer.errors import StartError
from convserve_trainer.nets import keras_file

Arrays: TypeAlias = list[npt.NDArray[np.float32]]
"""The weights of one layer, in Keras's order."""
Kept: TypeAlias = dict[str, list[Arrays]]
"""Weights of the layers of a net, by kind of layer, in the order of the net."""

SUFFIXES = (".keras", ".weights.h5")
WITHIN = "model.weights.h5"  # of a .keras file
FUSED = "fused"  # our batch normalisation in training is Keras's in all else
DAMAGE = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


def find(start_from: str) -> Path:
    """Returns the file with the weights of what a user named.

    Args:
        start_from: a file, or a bundle: its model.onnx, its version, or the model's folder.

    Raises:
        StartError: there is no such file or bundle.
    """
    path = Path(start_from)
    if path.is_file() and path.name.endswith(SUFFIXES):
        return path
    try:
        file = find_bundle(path).with_name(keras_file.NAME)
    except (BundleError, OSError) as error:
        why = os_errors.described(error) if isinstance(error, OSError) else error
        raise StartError(f"start_from: {why}") from error
    if not file.is_file():
        raise StartError(
            f"start_from: expected a bundle with {keras_file.NAME}, or a file that ends with "
            f"{' or '.join(SUFFIXES)}, got {path}"
        )
    return file


def read(path: Path) -> Kept:
    """Returns the weights in a file.

    Args:
        path: of a .keras or .weights.h5 file of Keras 3.

    Raises:
        StartError: it is damaged, or holds something else.
    """
    import h5py

    try:
        content = path.read_bytes()
        if path.suffix == ".keras":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read(WITHIN)
        with h5py.File(io.BytesIO(content), "r") as file:
            kept: Kept = {}
            for kind, arrays in _layers(file):
                kept.setdefault(kind, []).append(arrays)
    except DAMAGE as error:
        why = os_errors.reason(error) if isinstance(error, OSError) and error.errno else error
        raise StartError(f"{path} cannot be read ({' '.join(str(why).split())})") from error
    if not kept:
        raise StartError(
            f"{path}: expected the weights of a Sequential or functional net of Keras 3, got a "
            "file without layers"
        )
    return kept


def kind_of(layer: Any) -> str:
    """Returns what kind of layer a layer of Keras is, as `Kept` has it."""
    return _plain(type(layer).__name__)


def _layers(group: Any) -> Iterator[tuple[str, Arrays]]:
    """Yields kind and weights of the layers in a group of HDF5, those of nets within it first."""
    layers = group.get("layers")
    if layers is None:
        return
    names = sorted(layers, key=_numbered)
    for name in names:
        yield from _layers(layers[name])
    for name in names:
        variables = layers[name].get("vars") or {}
        arrays = [np.asarray(variables[key], np.float32) for key in sorted(variables, key=int)]
        if arrays:
            yield _plain(_numbered(name)[0]), arrays


def _numbered(name: str) -> tuple[str, int]:
    """Returns the parts of the name of a layer: of "conv2d_10" conv2d and 10."""
    found = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert found is not None
    return found[1], int(found[2] or 0)


def _plain(kind: str) -> str:
    return kind.replace("_", "").lower().removeprefix(FUSED)


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal.

    Raises:
        StartError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StartError(f"{path}: {os_errors.reason(error)}") from error
