"""Datatypes of the protocol, and tensors as bytes.

Source: "Tensor Data Types" of both specifications; for BYTES, Triton's extension of binary data.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.conformance.suite import Violation

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Datatype:
    """How elements of a datatype are sent.

    Args:
        numpy: dtype of its arrays; elements of BYTES are Python bytes in arrays of objects.
        field: of InferTensorContents; empty for FP16, which has none.
    """

    numpy: np.dtype[Any]
    field: str


DATATYPES = {
    "BOOL": Datatype(np.dtype(np.bool_), "bool_contents"),
    "UINT8": Datatype(np.dtype(np.uint8), "uint_contents"),
    "UINT16": Datatype(np.dtype(np.uint16), "uint_contents"),
    "UINT32": Datatype(np.dtype(np.uint32), "uint_contents"),
    "UINT64": Datatype(np.dtype(np.uint64), "uint64_contents"),
    "INT8": Datatype(np.dtype(np.int8), "int_contents"),
    "INT16": Datatype(np.dtype(np.int16), "int_contents"),
    "INT32": Datatype(np.dtype(np.int32), "int_contents"),
    "INT64": Datatype(np.dtype(np.int64), "int64_contents"),
    "FP16": Datatype(np.dtype(np.float16), ""),
    "FP32": Datatype(np.dtype(np.float32), "fp32_contents"),
    "FP64": Datatype(np.dtype(np.float64), "fp64_contents"),
    "BYTES": Datatype(np.dtype(object), "bytes_contents"),
}

_NUMBERS: list[Any] = [0, 1, 2, 3, 100]
_BYTES: list[Any] = [b"one", b"", "zwei: \u00e4\u4e2d".encode(), b"x" * 300]


def edge_values(datatype: str, shape: Sequence[int]) -> Array:
    """An array of a datatype with its extreme values, which are finite, so that JSON has them."""
    dtype = DATATYPES[datatype].numpy
    values: list[Any]
    if dtype.kind == "b":
        values = [True, False, False]
    elif dtype.kind in "iu":
        values = [np.iinfo(dtype).min, np.iinfo(dtype).max, *_NUMBERS]
    elif dtype.kind == "f":
        info = np.finfo(dtype)
        values = [info.min, info.max, info.tiny, -0.0, 0.5, *_NUMBERS]
    else:
        values = _BYTES
    count = int(np.prod(shape, dtype=np.int64))
    array = np.empty(count, dtype)
    for index in range(count):
        array[index] = values[index % len(values)]
    return array.reshape(shape)


def to_raw(array: Array) -> bytes:
    """A tensor's bytes, little-endian; elements of BYTES each after its length."""
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(each)) + each for each in array.ravel())
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def from_raw(data: bytes, datatype: str, shape: Sequence[int], field: str) -> Array:
    """The tensor that bytes hold.

    Args:
        data: the bytes.
        datatype: of its elements.
        shape: of the tensor.
        field: what the bytes are, for the message.

    Raises:
        Violation: if their number is not that of the shape and the datatype.
    """
    if datatype not in DATATYPES:
        raise Violation(f"{field}.datatype: expected one of the protocol, got {datatype!r}")
    if any(size < 0 for size in shape):
        raise Violation(f"{field}.shape: expected sizes that are not negative, got {list(shape)}")
    dtype = DATATYPES[datatype].numpy
    count = int(np.prod(shape, dtype=np.int64))
    if dtype.kind == "O":
        return _elements(data, count, field).reshape(shape)
    if len(data) != count * dtype.itemsize:
        raise Violation(
            f"{field}: expected {count * dtype.itemsize} bytes of {datatype} {list(shape)}, "
            f"got {len(data)}"
        )
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _elements(data: bytes, count: int, field: str) -> Array:
    elements = np.empty(count, object)
    offset = 0
    for index in range(count):
        if offset + 4 > len(data):
            raise Violation(f"{field}: expected {count} elements of BYTES, got {index}")
        (length,) = struct.unpack_from("<I", data, offset)
        elements[index] = data[offset + 4 : offset + 4 + length]
        offset += 4 + length
    if offset != len(data):
        raise Violation(f"{field}: expected {offset} bytes of BYTES, got {len(data)}")
    return elements


def equal(one: Array, other: Array) -> bool:
    """Whether two tensors are the same, bit for bit."""
    return one.dtype == other.dtype and one.shape == other.shape and to_raw(one) == to_raw(other)
