"""The manifest of a bundle: read from the metadata of the ONNX file, checked, written into it."""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor

from convserve_bundle.contract import FORMAT, FORMAT_WITH_OUTPUT, MANIFEST_KEY
from convserve_bundle.errors import BundleError
from convserve_imaging import METHODS
from convserve_protos.bundle_pb2 import (
    OUTPUT_MULTI_LABEL,
    OUTPUT_SOFTMAX,
    OUTPUT_UNSPECIFIED,
    ImageKind,
    Manifest,
    Output,
    Precision,
)


def read_manifest(metadata: Mapping[str, str]) -> Manifest:
    """Returns the manifest of a model, in a known format and precision, with a known output.

    Args:
        metadata: Of the ONNX file.

    Raises:
        BundleError: There is no manifest, it is damaged, or its format, precision or output is
            unknown.
    """
    text = metadata.get(MANIFEST_KEY)
    if text is None:
        raise BundleError(f"an ONNX file without {MANIFEST_KEY}: not published by convserve-train")
    manifest = Manifest()
    try:
        # A later version may write more fields; what this one needs is checked.
        json_format.Parse(text, manifest, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise BundleError(f"{MANIFEST_KEY} is damaged: {error}") from error
    # Read once more, because the parser skips an unknown name as it skips an unknown field.
    stated = json.loads(text)
    if isinstance(stated, dict):
        advice = "use a newer version of Convserve"
        remedy = f"{advice}, or publish the model in one of these"
        _check_name("precision", stated, Precision, remedy)
        _check_name("output", stated, Output, advice)
    expected = FORMAT if is_softmax(manifest) else FORMAT_WITH_OUTPUT
    if manifest.format != expected:
        raise BundleError(f"manifest.format: expected {expected}, got {manifest.format}")
    _check_thresholds(manifest)
    return manifest


def is_softmax(manifest: Manifest) -> bool:
    """Returns whether a picture has one label, so that the probabilities of a row sum to 1."""
    return manifest.output in (OUTPUT_UNSPECIFIED, OUTPUT_SOFTMAX)


def _check_name(field: str, stated: Mapping[str, Any], known: Any, advice: str) -> None:
    """Refuses a name of an enum that this version does not know.

    Raises:
        BundleError: It is one.
    """
    value = stated.get(field)
    if value is not None and value not in (*known.keys(), *known.values()):
        raise BundleError(
            f"manifest.{field}: expected one of {', '.join(known.keys()[1:])}, got {value!r}; "
            f"{advice}"
        )


def _check_thresholds(manifest: Manifest) -> None:
    """Refuses thresholds that do not fit the output.

    Raises:
        BundleError: They do not.
    """
    expected = len(manifest.labels) if manifest.output == OUTPUT_MULTI_LABEL else 0
    if len(manifest.thresholds) != expected:
        raise BundleError(
            f"manifest.thresholds: expected {expected}, got {len(manifest.thresholds)}"
        )
    for number, threshold in enumerate(manifest.thresholds):
        # Written so that a NaN is refused.
        if not 0 < threshold <= 1:
            raise BundleError(
                f"manifest.thresholds[{number}]: expected above 0 and at most 1, got {threshold:g}"
            )


def manifest_text(manifest: Manifest, earlier: str = "") -> str:
    """Returns the JSON text that the metadata of an ONNX file holds under MANIFEST_KEY.

    Args:
        manifest: Of the bundle.
        earlier: Text of the manifest that it was made from, if there is one: its unknown fields, as
            a later version writes them, are kept.
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
    if stated != image_shape:
        raise BundleError(f"manifest.input: expected shape {image_shape}, got {stated}")
    if len(manifest.labels) != classes:
        raise BundleError(f"manifest.labels: expected {classes}, got {len(manifest.labels)}")
    # A net must not get pixels that were made in another way than those of its training.
    if manifest.input.resize not in METHODS:
        number = manifest.input.kind
        # A later version may know other kinds.
        kind = ImageKind.Name(number) if number in ImageKind.values() else f"kind {number}"
        raise BundleError(
            f"manifest.input.resize: expected one of {', '.join(METHODS)}, got "
            f"{manifest.input.resize!r} ({kind}); use a newer version of Convserve"
        )
    made = METHODS[manifest.input.resize]
    sizes = zip(image_shape, made, strict=True)
    if image_shape[2] not in (1, 3) or any(size != must for size, must in sizes if must):
        raise BundleError(
            f"manifest.input: {manifest.input.resize} does not make images of shape "
            f"{list(image_shape)}"
        )
    return manifest
