"""What is sent: a request is split into calls, each of which is one message."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import numpy.typing as npt

from convserve.errors import InvalidRequest
from convserve.pixels import Batch, as_batch
from convserve.settings import Settings
from convserve_protos import classifier_pb2


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

    def request(self, batch: Batch, request_id: str = "") -> classifier_pb2.ClassifyRequest:
        """Returns the message that asks this of a batch, uint8 [N, H, W, C]."""
        count, height, width, channels = batch.shape
        return classifier_pb2.ClassifyRequest(
            id=request_id,
            model=self.model,
            version=self.version,
            top_k=self.top_k,
            pixels=classifier_pb2.Pixels(
                count=count, height=height, width=width, channels=channels, data=batch.tobytes()
            ),
        )


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls that one request is split into: views of its pixels, nothing is copied.

    Attributes:
        batch: uint8 [N, H, W, C].
        images_per_call: Images in each call but the last, which may have fewer.
    """

    batch: Batch
    images_per_call: int

    def __len__(self) -> int:
        return -(-len(self.batch) // self.images_per_call)

    def __iter__(self) -> Iterator[Batch]:
        starts = range(0, len(self.batch), self.images_per_call)
        return (self.batch[start : start + self.images_per_call] for start in starts)

    @property
    def counts(self) -> list[int]:
        """Number of images in each call."""
        return [len(part) for part in self]


def split(pixels: npt.ArrayLike, settings: Settings) -> Calls:
    """Splits images into calls that are not too large.

    Args:
        pixels: As for pixels.as_batch.
        settings: Says how much one call may hold; it always holds one image at least.

    Raises:
        InvalidRequest: The pixels are not what is taken.
    """
    batch = as_batch(pixels)
    fitting = settings.max_bytes_per_call // batch[0].nbytes
    return Calls(batch, max(1, min(settings.max_images_per_call, fitting)))


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
