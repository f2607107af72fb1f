"""What a caller hands over as files: their bytes, their paths, or pictures of Pillow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np

from convserve.errors import InvalidRequest, MessageTooLarge
from convserve.pillow_pictures import encode, is_picture

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = tuple[bytes, ...]

File: TypeAlias = "bytes | os.PathLike[str] | Image"
"""One picture: the bytes of its file, the path of it, or a picture of Pillow."""

EXPECTED = "the bytes of a picture file, a Path or a Pillow picture"

# No camera's file is larger; without a bound a path such as /dev/zero would never end.
MAX_FILE_BYTES = 64 * 2**20


def as_images(images: File | Sequence[File], png: bool = True) -> Encoded:
    """Brings one image or many into the one form that the protocol has.

    Args:
        images: One picture, or several in a sequence.
        png: Whether the model reads PNG, which pictures of Pillow then become; else JPEG.

    Returns:
        The bytes of each file; those that were bytes are not copied.

    Raises:
        InvalidRequest: Something is not a picture, or is empty.
        MessageTooLarge: A file has more than MAX_FILE_BYTES.
        OSError: A file cannot be read.
    """
    if isinstance(images, (bytes, os.PathLike)) or is_picture(images):
        return (_file("images", images, png),)
    if not isinstance(images, Sequence) or isinstance(images, (str, bytearray, memoryview)):
        raise InvalidRequest.expected("images", EXPECTED, _about(images))
    if not images:
        raise InvalidRequest.expected("images", EXPECTED, f"an empty {type(images).__name__}")
    return tuple(_file(f"images[{index}]", image, png) for index, image in enumerate(images))


def is_bytes(images: object) -> bool:
    """Returns whether there are but bytes, so that nothing needs to be read or encoded."""
    if isinstance(images, Sequence) and not isinstance(images, (str, bytes)):
        return all(isinstance(image, bytes) for image in images)
    return isinstance(images, bytes)


def is_encoded(item: object) -> TypeGuard[File | Sequence[File]]:
    """Returns whether an item of a stream is meant as files, not as pixels."""
    if isinstance(item, Sequence) and not isinstance(item, (str, bytes)) and item:
        return isinstance(item[0], (bytes, os.PathLike))
    return isinstance(item, (bytes, os.PathLike))


def _file(field: str, image: object, png: bool) -> bytes:
    if is_picture(image):
        return encode(field, image, png)
    if isinstance(image, os.PathLike):
        image = _read(image)
    if not isinstance(image, bytes):
        raise InvalidRequest.expected(field, EXPECTED, _about(image))
    if not image:
        raise InvalidRequest.expected(field, EXPECTED, "a file of 0 bytes")
    return image


def _read(path: os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        # Of a regular file no more than there is: read() allocates what it is asked for.
        size = os.fstat(file.fileno()).st_size or MAX_FILE_BYTES
        data = file.read(min(size, MAX_FILE_BYTES) + 1)
    if len(data) > MAX_FILE_BYTES:
        raise MessageTooLarge(f"{os.fspath(path)}: the file is larger than {MAX_FILE_BYTES} bytes")
    return data


def _about(image: object) -> str:
    advice = ""
    if isinstance(image, str):
        advice = ": pass Path(...)"
    elif isinstance(image, (bytearray, memoryview)):
        advice = ": pass bytes(...)"
    elif isinstance(image, np.ndarray):
        advice = "; pixels go to classify"
    return type(image).__name__ + advice
