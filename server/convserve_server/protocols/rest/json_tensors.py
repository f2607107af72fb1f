"""Elements of tensors as JSON: from arrays of numbers to raw bytes, and back.

Arrays may be nested as the shape is, or flat. JSON has neither NaN nor infinities, and its strings
are UTF-8: what it cannot say is refused, and can be had as binary data.
"""

import itertools
import math
import re
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from convserve_server.core.errors import quoted
from convserve_server.engines.tensors import DTYPES
from convserve_server.protocols.rest.json_bodies import MOST_VALUES, read_json
from convserve_server.protocols.rest.large_arrays import pieces
from convserve_server.protocols.rest.messages import Problem
from convserve_server.protocols.rest.parameters import wrong

#: Arrays that are larger are read piece by piece, bytes of JSON.
LARGE_BYTES = 2**16
#: Elements that become text at once.
_PIECE = 2**13
_LENGTH_BYTES = 4
_OPENING = re.compile(rb"[\s\[]*")


def raw_elements(data: bytes, datatype: str, shape: list[int], field: str) -> bytes:
    """Returns the elements of a tensor as bytes, row-major and little-endian.

    Args:
        data: JSON of an array.
        datatype: of the tensor.
        shape: of the tensor.
        field: which tensor's.

    Raises:
        Problem: if they are not of the type or number that the tensor states.
    """
    if datatype not in DTYPES:
        raise wrong(f"{field}: expected binary data for {quoted(datatype)}, got JSON")
    count = math.prod(shape)
    if len(data) > LARGE_BYTES and datatype != "BYTES" and count:
        return _large(data, datatype, shape, field)
    opening = _OPENING.match(data)
    depth = 0 if opening is None else opening[0].count(b"[")
    if depth > 1 and depth != len(shape):
        # Of a tensor without elements the innermost arrays may be missing.
        if depth > len(shape) or count:
            raise wrong(
                f"{field}: expected a flat array, or {len(shape)} nested ones as the shape "
                f"{shape} has, got {depth} nested ones"
            )
        return b""
    values = read_json(data, _decoder(datatype, max(1, depth)), field)
    if depth > 1:
        values = _flat(values, shape, field)
    if len(values) != count:
        raise wrong(f"{field}: expected {count} elements for {datatype} {shape}, got {len(values)}")
    return _packed(values, datatype, field)


def json_elements(data: bytes, datatype: str, field: str) -> list[Any]:
    """Returns the elements of a tensor for JSON, flat.

    Args:
        data: bytes, row-major and little-endian.
        datatype: of the tensor.
        field: which tensor's.

    Raises:
        Problem: if JSON cannot say one of them.
    """
    if datatype == "BYTES":
        return [_text(each, field) for each in split_elements(data)]
    array = np.frombuffer(data, DTYPES[datatype].newbyteorder("<"))
    if len(array) > MOST_VALUES:
        raise _not_in_json(field, f"at most {MOST_VALUES} elements for JSON, got {len(array)}")
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            raise _not_in_json(field, f"finite numbers for JSON, got {array[~finite][0]}")
        if array.dtype.itemsize < 8:
            # As text and back: the shortest digits that say which number it is.
            parts = (array[at : at + _PIECE] for at in range(0, len(array), _PIECE))
            return [float(text) for part in parts for text in part.astype("U16").tolist()]
    elements: list[Any] = array.tolist()
    return elements


def split_elements(data: bytes) -> list[bytes]:
    """Returns the elements of raw BYTES, each of which follows its length."""
    parts = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        parts.append(data[start:at])
    return parts


def _large(data: bytes, datatype: str, shape: list[int], field: str) -> bytes:
    """Returns the elements of a large tensor as raw_elements() does.

    Raises:
        Problem: if they are not of the type or number that the tensor states.
    """
    decoder, parts, at = _decoder(datatype, 1), [], 0
    for piece in pieces(data, shape, field):
        try:
            values = decoder.decode(piece)
        except msgspec.MsgspecError as error:
            end = at + piece.count(b",")
            raise wrong(
                f"{field}: expected values of {datatype}, got another among elements {at} to {end}"
            ) from error
        parts.append(_packed(values, datatype, field))
        at += len(values)
    if at != math.prod(shape):
        raise wrong(f"{field}: expected {math.prod(shape)} elements, got {at}")
    return b"".join(parts)


@lru_cache(maxsize=256)
def _decoder(datatype: str, depth: int) -> "msgspec.json.Decoder[list[Any]]":
    dtype = DTYPES[datatype]
    element: Any
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        # msgspec's limits are those of INT64; NumPy finds what is beyond UINT64's.
        most = None if datatype == "UINT64" else int(limits.max)
        element = Annotated[int, Meta(ge=int(limits.min), le=most)]
    else:
        element = {"f": float, "b": bool, "O": str}[dtype.kind]
    for _ in range(depth):
        element = list[element]
    return msgspec.json.Decoder(element)


def _flat(values: list[Any], shape: list[int], field: str) -> list[Any]:
    """Returns the elements of nested arrays.

    Raises:
        Problem: if an array is not as long as the shape states.
    """
    rows = [values]
    for axis, size in enumerate(shape):
        wrong_one = next((len(row) for row in rows if len(row) != size), None)
        if wrong_one is not None:
            raise wrong(
                f"{field}: expected arrays as the shape {shape} has, got one of {wrong_one} in "
                f"place of {size} on axis {axis}"
            )
        if axis < len(shape) - 1:
            rows = list(itertools.chain.from_iterable(rows))
    return list(itertools.chain.from_iterable(rows))


def _packed(values: list[Any], datatype: str, field: str) -> bytes:
    if datatype == "BYTES":
        texts = [each.encode() for each in values]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)
    dtype = DTYPES[datatype]
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
    except OverflowError as error:
        raise wrong(f"{field}: expected numbers for {datatype}, got larger ones") from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        value = values[int(np.argmin(np.isfinite(array)))]
        raise wrong(f"{field}: expected numbers for {datatype}, got {value}")
    return array.astype(dtype.newbyteorder("<"), copy=False).tobytes()


def _text(data: bytes, field: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _not_in_json(field, "UTF-8 for JSON, got other bytes") from error


def _not_in_json(field: str, what: str) -> Problem:
    return Problem(400, "NOT_IN_JSON", f"{field}: expected {what}; ask for binary_data")
