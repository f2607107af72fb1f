"""The manifest of a bundle: read from the metadata of the ONNX file, checked, written into it."""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor

from convserve_bundle.contract import FORMAT, MANIFEST_KEY
from convserve_bundle.errors import BundleError
from convserve_imaging import METHODS
from convserve_protos.bundle_pb2 import ImageKind, Manifest, Precision


def read_manifest(metadata: Mapping[str, str]) -> Manifest:
    """Returns the manifest of a model, in a format and a precision that are known here.

    Args:
        metadata: Of the ONNX file.

    Raises:
        BundleError: There is no manifest, it is damaged, or its format or precision is another.
    """
    text = metadata.get(MANIFEST_KEY)
    if text is None:
        raise BundleError(f"an ONNX file without {MANIFEST_KEY}: not published by convserve-train")
    manifest = Manifest()
    try:
        # A later version may say more; what this one needs is checked.
        json_format.Parse(text, manifest, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise BundleError(f"{MANIFEST_KEY} is damaged: {error}") from error
    # Read once more, because a name that is not known is passed over as a field would be.
    stated = json.loads(text)
    precision = stated.get("precision") if isinstance(stated, dict) else None
    if precision is not None and precision not in (*Precision.keys(), *Precision.values()):
        raise BundleError(
            f"the manifest's precision is {precision!r}, which this version does not know; use a "
            f"newer one, or publish the model in one of {', '.join(Precision.keys()[1:])}"
        )
    if manifest.format != FORMAT:
        raise BundleError(f"the manifest's format is {manifest.format}, expected {FORMAT}")
    return manifest


def manifest_text(manifest: Manifest, earlier: str = "") -> str:
    """Returns what the metadata of an ONNX file holds under MANIFEST_KEY, JSON.

    Args:
        manifest: Of the bundle.
        earlier: Text of the manifest that it was made from, if it was: fields that are not known
            here, as a later version writes them, are kept.
    """
    made = json_format.MessageToDict(manifest)
    if earlier:
        _keep_unknown(json.loads(earlier), Manifest.DESCRIPTOR, made)
    return json.dumps(made)


def _keep_unknown(earlier: dict[str, Any], descriptor: Descriptor, made: dict[str, Any]) -> None:
    """Copies the fields of a message in JSON that its descriptor does not have."""
    known = {key: field for field in descriptor.fields for key in (field.json_name, field.name)}
    for key, value in earlier.items():
        field = known.get(key)
        if field is None:
            made[key] = value
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            inner = made.get(field.json_name)
            if isinstance(value, dict) and isinstance(inner, dict):
                _keep_unknown(value, field.message_type, inner)


def check_manifest(
    metadata: Mapping[str, str], image_shape: tuple[int, int, int], classes: int
) -> Manifest:
    """Returns the manifest of a model, checked against the file's own shapes.

    Args:
        metadata: Of the ONNX file.
        image_shape: (H, W, C) of the graph's input.
        classes: Columns of the graph's output.

    Raises:
        BundleError: There is no manifest, or it contradicts the file.
    """
    manifest = read_manifest(metadata)
    stated = (manifest.input.height, manifest.input.width, manifest.input.channels)
    agree: tuple[tuple[str, Any, Any], ...] = (
        ("input shape", stated, image_shape),
        ("number of labels", len(manifest.labels), classes),
    )
    for what, has, must in agree:
        if has != must:
            raise BundleError(f"the manifest's {what} is {has!r}, expected {must!r}")
    # A net must not get pixels that were made in another way than those it has seen.
    if manifest.input.resize not in METHODS:
        number = manifest.input.kind
        # A later version may know other kinds.
        kind = ImageKind.Name(number) if number in ImageKind.values() else f"kind {number}"
        raise BundleError(
            f"trained on pixels made by {manifest.input.resize!r} ({kind}), which this version "
            "lacks"
        )
    made = METHODS[manifest.input.resize]
    sizes = zip(image_shape, made, strict=True)
    if image_shape[2] not in (1, 3) or any(size != must for size, must in sizes if must):
        raise BundleError(
            f"{manifest.input.resize} does not make images of shape {list(image_shape)}"
        )
    return manifest
