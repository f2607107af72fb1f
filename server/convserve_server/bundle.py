"""Reads a model bundle: the manifest in the ONNX file, and whether file and manifest agree."""

import json
from typing import Any

from google.protobuf import json_format

from convserve_imaging import METHODS
from convserve_protos.bundle_pb2 import ImageKind, Manifest, Precision

MANIFEST_KEY = "convserve.manifest"
FORMAT = 1


class BundleError(Exception):
    """The bundle cannot be served; str() says why."""


def read_manifest(custom_metadata: dict[str, str]) -> Manifest:
    """The manifest of a model, in a precision that this server knows.

    Args:
        custom_metadata: the metadata of the ONNX file.

    Raises:
        BundleError: if there is no manifest, it is damaged, or the precision is another.
    """
    text = custom_metadata.get(MANIFEST_KEY)
    if text is None:
        raise BundleError(f"an ONNX file without {MANIFEST_KEY}: not published by convserve-train")
    manifest = Manifest()
    try:
        # A later trainer may say more; what this server needs is checked.
        json_format.Parse(text, manifest, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise BundleError(f"{MANIFEST_KEY} is damaged: {error}") from error
    # Read once more, because a name that is not known is passed over as a field would be.
    said = json.loads(text)
    precision = said.get("precision") if isinstance(said, dict) else None
    if precision is not None and precision not in (*Precision.keys(), *Precision.values()):
        raise BundleError(
            f"the manifest's precision is {precision!r}, which this server does not know; serve it "
            f"with a newer one, or publish it in one of {', '.join(Precision.keys()[1:])}"
        )
    return manifest


def check_manifest(
    custom_metadata: dict[str, str], image_shape: tuple[int, int, int], classes: int
) -> Manifest:
    """The manifest of a model, checked against the file's own shapes.

    Args:
        custom_metadata: the metadata of the ONNX file.
        image_shape: (H, W, C) of the graph's input.
        classes: columns of the graph's output.

    Raises:
        BundleError: if there is no manifest, or it contradicts the file.
    """
    manifest = read_manifest(custom_metadata)
    stated = (manifest.input.height, manifest.input.width, manifest.input.channels)
    agree: tuple[tuple[str, Any, Any], ...] = (
        ("format", manifest.format, FORMAT),
        ("input shape", stated, image_shape),
        ("number of labels", len(manifest.labels), classes),
    )
    for what, has, must in agree:
        if has != must:
            raise BundleError(f"the manifest's {what} is {has!r}, expected {must!r}")
    # A net must not get pixels that were made in another way than those it has seen.
    if manifest.input.resize not in METHODS:
        number = manifest.input.kind
        # A later trainer may know other kinds.
        kind = ImageKind.Name(number) if number in ImageKind.values() else f"kind {number}"
        raise BundleError(
            f"trained on pixels made by {manifest.input.resize!r} ({kind}), which this server lacks"
        )
    made = METHODS[manifest.input.resize]
    sizes = zip(image_shape, made, strict=True)
    if image_shape[2] not in (1, 3) or any(size != must for size, must in sizes if must):
        raise BundleError(
            f"{manifest.input.resize} does not make images of shape {list(image_shape)}"
        )
    return manifest
