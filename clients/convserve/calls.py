"""What is sent: a request is split into calls, each of which is one message."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from convserve.encoded import Encoded, as_images
from convserve.errors import InvalidRequest
from convserve.pixels import Batch, as_batch
from convserve.settings import Settings
from convserve_protos import classifier_pb2

Images = Batch | Encoded
"""The images of one call: uint8 [N, H, W, C], or the bytes of N files."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of all images of a request.

    Attributes:
        model: Name of the model.
        version: Its version; None: the newest that is loaded.
        top_k: Only the k most probable classes; None: all.
    """

    model: str
    version: int | None
    top_k: int | None

    def request(self, images: Images, request_id: str = "") -> classifier_pb2.ClassifyRequest:
        """Returns the message that asks this of the images of one call."""
        request = classifier_pb2.ClassifyRequest(
            id=request_id, model=self.model, version=self.version, top_k=self.top_k
        )
        if isinstance(images, tuple):
            request.encoded.images.extend(images)
            return request
        count, height, width, channels = images.shape
        request.pixels.count = count
        request.pixels.height, request.pixels.width = height, width
        request.pixels.channels = channels
        request.pixels.data = images.tobytes()
        return request


def split(pixels: npt.ArrayLike, settings: Settings) -> Sequence[Batch]:
    """Splits images into calls that are not too large.

    Args:
        pixels: As for pixels.as_batch.
        settings: Says how much one call may hold; it always holds one image at least.

    Returns:
        The pixels of each call: views, nothing is copied.

    Raises:
        InvalidRequest: The pixels are not what is taken.
    """
    batch = as_batch(pixels)
    fitting = settings.max_bytes_per_call // batch[0].nbytes
    images_per_call = max(1, min(settings.max_images_per_call, fitting))
    starts = range(0, len(batch), images_per_call)
    return [batch[start : start + images_per_call] for start in starts]


def split_images(images: bytes | Sequence[bytes], settings: Settings) -> Sequence[Encoded]:
    """Splits encoded images into calls that are not too large, in their order.

    Args:
        images: As for encoded.as_images.
        settings: Says how much one call may hold; an image that is more goes alone.

    Returns:
        The images of each call; their bytes are not copied.

    Raises:
        InvalidRequest: The images are not what is taken.
    """
    calls: list[list[bytes]] = []
    room = 0
    for image in as_images(images):
        if len(image) > room or len(calls[-1]) == settings.max_images_per_call:
            calls.append([])
            room = settings.max_bytes_per_call
        calls[-1].append(image)
        room -= len(image)
    return [tuple(call) for call in calls]


def checked(field: str, value: int | None, bits: int) -> int | None:
    """Returns an optional field as the protocol can carry it; the server judges what it means.

    Raises:
        InvalidRequest: It is no integer, or does not fit into so many bits without a sign.
    """
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InvalidRequest.of(field, f"was {value!r}; an integer is taken") from error
    if not 0 <= number < 2**bits:
        raise InvalidRequest.of(field, f"was {number}; 1 to {2**bits - 1} is taken")
    return number
