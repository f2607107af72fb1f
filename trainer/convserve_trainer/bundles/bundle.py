"""Reading a bundle with its graph.

net, manifest = read(Path("models/mnist"))      # the newest version
"""

from pathlib import Path

import onnx
from google.protobuf import message

from convserve_bundle.errors import BundleError
from convserve_bundle.folder import find_bundle
from convserve_bundle.manifest import read_manifest as manifest_in
from convserve_bundle.onnx_metadata import read_metadata
from convserve_protos.bundle_pb2 import Manifest


def read(path: Path) -> tuple[onnx.ModelProto, Manifest]:
    """Returns a bundle's graph and manifest.

    Args:
        path: as `convserve_bundle.folder.find_bundle` takes it.

    Raises:
        BundleError: there is no bundle, or the file is not one.
    """
    file = find_bundle(path)
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
        BundleError: it is not a bundle.
    """
    try:
        model = onnx.load_model_from_string(content)
    except message.DecodeError as error:
        raise BundleError(f"{file}: not an ONNX file") from error
    if not model.graph.node:
        raise BundleError(f"{file}: not an ONNX file: it has no graph")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if len(metadata) < len(model.metadata_props):
        raise BundleError(f"{file}: metadata: expected each key once, got {sorted(metadata)}")
    return model, _manifest(metadata, file)


def read_manifest(path: Path) -> Manifest:
    """Returns a bundle's manifest, without reading its graph; see `read`."""
    file = find_bundle(path)
    try:
        metadata = read_metadata(file)
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}") from error
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error
    return _manifest(metadata, str(file))


def _manifest(metadata: dict[str, str], file: str) -> Manifest:
    try:
        return manifest_in(metadata)
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error
