"""What is sent: a request is split into calls, each of which is one message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from convserve.arguments import shown, validate_text, validate_uint
from convserve.encoded import Encoded, File, as_images
from convserve.errors import InvalidRequest
from convserve.pixels import Batch, as_batch
from convserve.settings import Settings
from convserve_protos import classifier_pb2

VersionChoice = int | str | None
"""A version that is asked for: its number, a label of it, or None for the default."""

Images = Batch | Encoded
"""The images of one call: uint8 [N, H, W, C], or the bytes of N files."""


Metadata = tuple[tuple[str, str], ...]
"""What gRPC sends beside a message."""


@dataclass(frozen=True, slots=True)
class ClassifyOptions:
    """What is asked of all images of a request.

    Attributes:
        model: Name of the model.
        version: Its version, or a label; None: the newest that is loaded.
        top_k: Only the k most probable classes; None: all.
    """

    model: str
    version: VersionChoice
    top_k: int | None

    @property
    def number(self) -> int | None:
        """The version, if it is asked for by its number."""
        return self.version if isinstance(self.version, int) else None

    @property
    def label(self) -> str | None:
        """The label, if the version is asked for by one."""
        return self.version if isinstance(self.version, str) else None

    @classmethod
    def validated(cls, model: object, version: VersionChoice, top_k: object) -> ClassifyOptions:
        """Returns the options that a caller passed; the server judges what they mean.

        Args:
            model: Name, a str; "" for None.
            version: As version_choice returned it.
            top_k: An integer, or None.

        Raises:
            InvalidRequest: One of them is of another kind, or the protocol cannot carry it.
        """
        return cls(
            "" if model is None else validate_text("model", model),
            version,
            None if top_k is None else validate_uint("top_k", top_k, 32),
        )

    def request(self, images: Images, request_id: str = "") -> classifier_pb2.ClassifyRequest:
        """Returns the message that asks this of the images of one call."""
        request = classifier_pb2.ClassifyRequest(
            id=request_id,
            model=self.model,
            version=self.number,
            version_label=self.label or "",
            top_k=self.top_k,
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


def version_choice(version: object, label: object) -> VersionChoice:
    """Returns the version that a caller asks for.

    Args:
        version: An integer, or None.
        label: A str; "" for None.

    Raises:
        InvalidRequest: One of them is of another kind, or both are given.
    """
    number = None if version is None else validate_uint("version", version, 64)
    text = None if label is None else validate_text("label", label)
    if number is not None and text:
        raise InvalidRequest.expected("label", "none beside a version", shown(text))
    return text or number


def split(pixels: npt.ArrayLike, settings: Settings) -> Sequence[Batch]:
    """Splits images into calls that are not too large.

    Args:
        pixels: As for pixels.as_batch.
        settings: Says how much one call may hold; it always holds one image at least.

    Returns:
        The pixels of each call: views, nothing is copied.

    Raises:
        InvalidRequest: The pixels are not of a kind or shape that pixels.as_batch accepts.
    """
    batch = as_batch(pixels)
    fitting = settings.max_bytes_per_call // batch[0].nbytes
    images_per_call = max(1, min(settings.max_images_per_call, fitting))
    starts = range(0, len(batch), images_per_call)
    return [batch[start : start + images_per_call] for start in starts]


def split_images(
    images: File | Sequence[File], settings: Settings, png: bool = True
) -> Sequence[Encoded]:
    """Splits encoded images into calls that are not too large, in their order.

    Args:
        images: As for encoded.as_images.
        settings: Says how much one call may hold; an image that is more goes alone.
        png: As for encoded.as_images.

    Returns:
        The images of each call; their bytes are not copied.

    Raises:
        ConvserveError, OSError: As encoded.as_images.
    """
    calls: list[list[bytes]] = []
    left = 0
    for image in as_images(images, png):
        if len(image) > left or len(calls[-1]) == settings.max_images_per_call:
            calls.append([])
            left = settings.max_bytes_per_call
        calls[-1].append(image)
        left -= len(image)
    return [tuple(call) for call in calls]
