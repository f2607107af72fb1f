"""Large JSON arrays of numbers, read piece by piece.

The decoder keeps the GIL until it is done: a whole array would hold up every other call of the
process until then, and each of its elements and inner arrays would be an object. Where
brackets and commas are those of the shape, the brackets say nothing more, and the elements between
the commas can be read a few thousand at a time.
"""

import math
from collections.abc import Iterator, Sequence

from convserve_server.protocols.rest.json_bodies import MOST_VALUES
from convserve_server.protocols.rest.messages import Problem
from convserve_server.protocols.rest.parameters import wrong

#: Of JSON that is read at once, at least.
_PIECE_BYTES = 2**15

_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")
#: All bytes but those that say what belongs together.
_ELEMENTS = bytes(set(range(256)) - set(b"[],"))


def pieces(data: bytes, shape: Sequence[int], field: str) -> Iterator[bytes]:
    """Yields JSON of flat arrays, which together have the elements of an array in their order.

    Args:
        data: JSON of an array of numbers, or of true and false; flat, or nested as the shape.
        shape: of the tensor, with one element at least.
        field: which tensor's.

    Raises:
        Problem: if it is not as the shape, or has something else.
    """
    count = math.prod(shape)
    if count > MOST_VALUES:
        raise too_many(field, count)
    if any(mark in data for mark in (b'"', b"{")):
        raise wrong(f"{field}: expected an array of numbers, or of true and false, got others")
    found = data.count(b",") + 1
    if found != count:
        raise wrong(f"{field}: expected {count} elements for the shape {list(shape)}, got {found}")
    marks = data.translate(None, _ELEMENTS)
    if marks not in (_marks([count]), _marks(shape)):
        raise wrong(f"{field}: expected arrays as the shape {list(shape)} has, or one, got others")
    flat = data.translate(_BRACKETS_TO_SPACES)
    at = 0
    while at < len(flat):
        end = flat.find(b",", at + _PIECE_BYTES)
        end = len(flat) if end < 0 else end
        yield b"".join((b"[", memoryview(flat)[at:end], b"]"))
        at = end + 1


def too_many(field: str, count: int) -> Problem:
    """Returns the error of more elements than JSON may have.

    Args:
        field: which tensor's.
        count: of its elements.
    """
    return wrong(
        f"{field}: expected at most {MOST_VALUES} elements as JSON, got {count}; "
        "send and ask for binary data"
    )


def _marks(shape: Sequence[int]) -> bytes:
    """Returns the brackets and commas of an array that is nested as a shape."""
    marks = b"," * (shape[-1] - 1)
    for size in reversed(shape[:-1]):
        marks = b",".join([b"[" + marks + b"]"] * size)
    return b"[" + marks + b"]"
