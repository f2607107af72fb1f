"""What a caller hands over as files: the bytes of one image or of many."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from convserve.errors import InvalidRequest

Encoded = tuple[bytes, ...]

TAKEN = "bytes are taken, those of one picture file"


def as_images(images: bytes | Sequence[bytes]) -> Encoded:
    """Brings one image or many into the one form that the protocol has.

    Args:
        images: The bytes of one file, or of several files in a sequence.

    Returns:
        The bytes of each file; nothing is copied.

    Raises:
        InvalidRequest: Something is not bytes, or is empty.
    """
    if isinstance(images, bytes):
        return (_checked("images", images),)
    if not isinstance(images, Sequence) or isinstance(images, (str, bytearray, memoryview)):
        raise InvalidRequest.of("images", _about(images))
    if not images:
        raise InvalidRequest.of("images", "was empty; at least one image is taken")
    return tuple(_checked(f"images[{place}]", image) for place, image in enumerate(images))


def is_encoded(item: object) -> TypeGuard[bytes | Sequence[bytes]]:
    """Returns whether an item of a stream is meant as files, not as pixels."""
    if isinstance(item, Sequence) and not isinstance(item, (str, bytes)) and item:
        return isinstance(item[0], bytes)
    return isinstance(item, bytes)


def _checked(field: str, image: object) -> bytes:
    if not isinstance(image, bytes):
        raise InvalidRequest.of(field, _about(image))
    if not image:
        raise InvalidRequest.of(field, f"was empty, 0 bytes; {TAKEN}")
    return image


def _about(image: object) -> str:
    advice = ""
    if isinstance(image, (str, os.PathLike)):
        advice = ": pass Path(...).read_bytes()"
    elif isinstance(image, (bytearray, memoryview)):
        advice = ": pass bytes(...)"
    elif isinstance(image, np.ndarray):
        advice = "; pixels go to classify"
    return f"was {type(image).__name__}; {TAKEN}{advice}"
