"""Reads the metadata of an ONNX file without the package onnx, by the fields of its message.

Weights are skipped, so only the metadata is read into memory.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (ModelProto: graph = 7,
metadata_props = 14; StringStringEntryProto: key = 1, value = 2).
"""

import os
from pathlib import Path
from typing import BinaryIO

from convserve_bundle.errors import BundleError
from convserve_bundle.wire_format import BYTES, NO_ONNX, fields

_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2

#: Most bytes of one entry of the metadata: a manifest has some kilobytes.
_MOST_ENTRY = 2**24
#: Most fields of the message: that of a net has about ten.
_MOST_FIELDS = 10_000


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of an ONNX file, values by key.

    Args:
        path: Of the file.

    Raises:
        BundleError: It is not a valid ONNX file, or has a key twice.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return metadata_in(file, os.fstat(file.fileno()).st_size)


def metadata_in(file: BinaryIO, size: int) -> dict[str, str]:
    """Returns the metadata of an open ONNX file of so many bytes, values by key.

    Raises:
        BundleError, OSError: See read_metadata.
    """
    metadata: dict[str, str] = {}
    has_graph = False
    for number, kind, length in fields(file, size, _MOST_FIELDS):
        if (number, kind) == (_GRAPH, BYTES):
            has_graph = has_graph or length > 0
        if (number, kind) != (_METADATA, BYTES):
            file.seek(length, os.SEEK_CUR)
            continue
        if length > _MOST_ENTRY:
            raise BundleError(f"metadata: expected at most {_MOST_ENTRY} bytes, got {length}")
        key, value = _entry(file, file.tell() + length)
        if key in metadata:
            raise BundleError(f"metadata: expected each key once, got {key!r} twice")
        metadata[key] = value
    if not has_graph:
        raise BundleError(f"{NO_ONNX}: it has no graph")
    return metadata


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    """Returns the key and the value of the entry up to a position."""
    texts = {_KEY: "", _VALUE: ""}
    for number, kind, length in fields(file, end, _MOST_FIELDS):
        content = file.read(length)
        if kind == BYTES and number in texts:
            try:
                texts[number] = content.decode()
            except UnicodeDecodeError as error:
                raise BundleError(f"{NO_ONNX}: its metadata is not text") from error
    return texts[_KEY], texts[_VALUE]
