"""Reads the metadata of an ONNX file without the package onnx, by the fields of its message.

Weights are skipped, so only the metadata is read into memory.

Source: https://protobuf.dev/programming-guides/encoding/ and
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (ModelProto: graph = 7, metadata_props = 14;
StringStringEntryProto: key = 1, value = 2).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from convserve_bundle.errors import BundleError

_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
#: Most bytes of a number.
_MOST_VARINT = 10
#: Most bytes of one entry of the metadata: a manifest has some kilobytes.
_MOST_ENTRY = 2**24
#: Most fields of the message: that of a net has about ten.
_MOST_FIELDS = 10_000

_NO_ONNX = "not an ONNX file"


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of an ONNX file, values by key.

    Args:
        path: Of the file.

    Raises:
        BundleError: It is not a valid ONNX file, or has a key twice.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _metadata(file, os.fstat(file.fileno()).st_size)


def _metadata(file: BinaryIO, size: int) -> dict[str, str]:
    metadata: dict[str, str] = {}
    has_graph = False
    for number, kind, length in _fields(file, size):
        if (number, kind) == (_GRAPH, _BYTES):
            has_graph = has_graph or length > 0
        if (number, kind) != (_METADATA, _BYTES):
            file.seek(length, os.SEEK_CUR)
            continue
        if length > _MOST_ENTRY:
            raise BundleError(f"metadata: expected at most {_MOST_ENTRY} bytes, got {length}")
        key, value = _entry(file, file.tell() + length)
        if key in metadata:
            raise BundleError(f"metadata: expected each key once, got {key!r} twice")
        metadata[key] = value
    if not has_graph:
        raise BundleError(f"{_NO_ONNX}: it has no graph")
    return metadata


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    """Returns the key and the value of the entry up to a position."""
    texts = {_KEY: "", _VALUE: ""}
    for number, kind, length in _fields(file, end):
        content = file.read(length)
        if kind == _BYTES and number in texts:
            try:
                texts[number] = content.decode()
            except UnicodeDecodeError as error:
                raise BundleError(f"{_NO_ONNX}: its metadata is not text") from error
    return texts[_KEY], texts[_VALUE]


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields number, wire type and length of each field; the caller reads or skips its content."""
    for _ in range(_MOST_FIELDS):
        if file.tell() == end:
            return
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
            length = 0
        elif kind in (_FIXED_64, _FIXED_32):
            length = 8 if kind == _FIXED_64 else 4
        elif kind == _BYTES:
            length = _varint(file)
        else:
            raise BundleError(_NO_ONNX)
        if not number or file.tell() + length > end:
            raise BundleError(_NO_ONNX)
        yield number, kind, length
    raise BundleError(f"{_NO_ONNX}: expected at most {_MOST_FIELDS} fields")


def _varint(file: BinaryIO) -> int:
    value = 0
    for index in range(_MOST_VARINT):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value
    raise BundleError(_NO_ONNX)
