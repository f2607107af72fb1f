"""Reads the fields of a protobuf message in a file, without its classes, and skips what is large.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from typing import BinaryIO

from convserve_bundle.errors import BundleError

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
#: Most bytes of a number.
_MOST_VARINT = 10

NO_ONNX = "not an ONNX file"


def fields(file: BinaryIO, end: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yields number, wire type and length of each field; the caller reads or skips its content.

    See numbered_fields, which yields numbers with their values.
    """
    for number, kind, length, _ in numbered_fields(file, end, most):
        yield number, kind, length


def numbered_fields(file: BinaryIO, end: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields number, wire type and length of each field, and its value if that is a varint.

    The caller reads or skips the content of others, whose value is 0.

    Args:
        file: At the beginning of the message.
        end: Of the message, as a position in the file.
        most: Fields.

    Raises:
        BundleError: It is not a message, or has more fields.
    """
    for _ in range(most):
        if file.tell() == end:
            return
        tag = varint(file)
        number, kind = tag >> 3, tag & 7
        length = value = 0
        if kind == VARINT:
            value = varint(file)
        elif kind in (FIXED_64, FIXED_32):
            length = 8 if kind == FIXED_64 else 4
        elif kind == BYTES:
            length = varint(file)
        else:
            raise BundleError(NO_ONNX)
        if not number or file.tell() + length > end:
            raise BundleError(NO_ONNX)
        yield number, kind, length, value
    raise BundleError(f"{NO_ONNX}: expected at most {most} fields")


def varint(file: BinaryIO) -> int:
    """Returns a number of variable length, 0 to 2**70 - 1.

    Raises:
        BundleError: It is none.
    """
    value = 0
    for index in range(_MOST_VARINT):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value
    raise BundleError(NO_ONNX)
