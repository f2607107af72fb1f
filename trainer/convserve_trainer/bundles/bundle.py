"""Reading a bundle: models/<name>/<version>/model.onnx with its manifest.

manifest = read_manifest(Path("models/mnist"))      # the newest version
"""

from pathlib import Path

import onnx
from google.protobuf import json_format, message

from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import manifest as manifests
from convserve_trainer.errors import BundleError, MissingBundleError

FILE = "model.onnx"
VERSION = "a version is a whole number from 1, without zeros before it"


def find(path: Path) -> Path:
    """Returns the path of a bundle's model.onnx.

    Args:
        path: of the file, of its version folder, or of the model's folder (the newest version).

    Raises:
        MissingBundleError: there is no such path.
        BundleError: there is no bundle.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise MissingBundleError(f"{path}: no such file or folder")
    if (path / FILE).is_file():
        return path / FILE
    newest = max((number for number in versions(path)), default=None)
    if newest is None or not (path / str(newest) / FILE).is_file():
        raise BundleError(_no_bundle(path))
    return path / str(newest) / FILE


def versions(folder: Path) -> list[int]:
    """Returns the versions in a model's folder: what is named with a positive integer."""
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir()]
    return sorted(
        int(name) for name in names if name.isascii() and name.isdecimal() and name[0] != "0"
    )


def passed_over(folder: Path) -> list[str]:
    """Returns the names in a model's folder that hold a bundle and are no version: "001", "v2"."""
    numbers = {str(number) for number in versions(folder)}
    return [name for name in _holding(folder, FILE) if name not in numbers]


def models_in(folder: Path) -> list[str]:
    """Returns the names of the models in a folder of all models."""
    return [name for name in _holding(folder, f"[0-9]*/{FILE}") if versions(folder / name)]


def _holding(folder: Path, pattern: str) -> list[str]:
    """Returns the names in a folder, but for hidden ones, that have what a pattern says."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")
    return [name for name in names if next((folder / name).glob(pattern), None)]


def _no_bundle(path: Path) -> str:
    nothing = f"{path}: holds neither {FILE} nor a version folder with one"
    if others := passed_over(path):
        return f"{nothing}; not used: {', '.join(others)}: {VERSION}"
    if models := models_in(path):
        return f"{nothing}; it is the folder of the models {', '.join(models)}: name one of them"
    return nothing


def read(path: Path) -> tuple[onnx.ModelProto, Manifest]:
    """Returns a bundle's graph and manifest.

    Args:
        path: as `find` takes it.

    Raises:
        BundleError: there is no bundle, or the file is not one.
    """
    file = find(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}") from error
    return loaded(content, str(file))


def loaded(content: bytes, file: str) -> tuple[onnx.ModelProto, Manifest]:
    """Returns a bundle's graph and manifest.

    Args:
        content: of model.onnx.
        file: how messages call it.

    Raises:
        BundleError: it is no bundle.
    """
    try:
        model = onnx.load_model_from_string(content)
    except message.DecodeError as error:
        raise BundleError(f"{file}: not an ONNX file") from error
    if not model.graph.node:
        raise BundleError(f"{file}: not an ONNX file: it has no graph")
    return model, _manifest(model, file)


def read_manifest(path: Path) -> Manifest:
    """Returns a bundle's manifest; see `read`."""
    return read(path)[1]


def _manifest(model: onnx.ModelProto, file: str) -> Manifest:
    texts = [entry.value for entry in model.metadata_props if entry.key == manifests.KEY]
    if len(texts) != 1:
        raise BundleError(
            f"{file}: not a bundle: its metadata has {len(texts)} entries {manifests.KEY!r}, "
            "expected 1; publish it with convserve-train"
        )
    try:
        manifest = json_format.Parse(texts[0], Manifest())
    except json_format.ParseError as error:
        raise BundleError(f"{file}: damaged manifest: {error}") from error
    if manifest.format != manifests.FORMAT:
        raise BundleError(
            f"{file}: its manifest has format {manifest.format}, expected {manifests.FORMAT}"
        )
    return manifest
