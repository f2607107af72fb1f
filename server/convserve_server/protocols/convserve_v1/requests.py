"""What a request must be, and its images as an array."""

from typing import NamedTuple

import numpy as np

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import InvalidRequest, NotABundle
from convserve_server.core.models import VersionChoice
from convserve_server.engines.base import Pixels

_MAX_ID_BYTES = 128

#: See PixelsRequest.
NO_INPUT = -1

#: The bytes before the fields id and model, and the first byte of a length that has more than one.
_ID_KEY = pb.ClassifyRequest.ID_FIELD_NUMBER << 3 | 2
_MODEL_KEY = pb.ClassifyRequest.MODEL_FIELD_NUMBER << 3 | 2
_LONG = 0x80


class PixelsRequest(NamedTuple):
    """A request with images as pixels, as its bytes have it; nothing of it is checked yet.

    Attributes:
        request_id: repeated in the answer.
        model: its name.
        version: of the model, or a label; None for the newest.
        top_k: only so many classes of each image; None for all.
        shape: count, height, width, channels.
        buffer: bytes in which the pixels lie.
        at: index of the first.
        size: how many there are; NO_INPUT: the request has neither pixels nor files.
    """

    request_id: str
    model: str
    version: VersionChoice
    top_k: int | None
    shape: tuple[int, int, int, int]
    buffer: bytes
    at: int
    size: int


def named_model(payload: bytes) -> str | None:
    """Returns the model that the bytes of a ClassifyRequest name, without parsing them.

    None if they do not begin as all clients write them: the id, if there is one, and the model. Of
    bytes that name several models, which no client writes, this is the first.

    Source: https://protobuf.dev/programming-guides/encoding/ (length-delimited fields).
    """
    try:
        at = 2 + payload[1] if payload[0] == _ID_KEY else 0
        if payload[at] != _MODEL_KEY or at > _LONG + 1 or payload[at + 1] >= _LONG:
            return None
        return payload[at + 2 : at + 2 + payload[at + 1]].decode()
    except (IndexError, UnicodeDecodeError):
        return None


def check_id(request: pb.ClassifyRequest) -> None:
    """Checks the id of a request, which is repeated in its answer.

    Raises:
        InvalidRequest: if it is too long.
    """
    if request.id and len(request.id.encode()) > _MAX_ID_BYTES:
        raise InvalidRequest(
            "id", f"expected at most {_MAX_ID_BYTES} bytes, got {len(request.id.encode())}"
        )


def version_choice(request: pb.ClassifyRequest) -> VersionChoice:
    """Returns the version that a request asks for, or its label; None for the newest.

    Raises:
        InvalidRequest: if it asks for both.
    """
    label = request.version_label
    if not request.HasField("version"):
        return label or None
    if label:
        raise InvalidRequest("version_label", "expected none beside a version, got one")
    return request.version


def check_top_k(top_k: int, model: ModelDescription) -> None:
    """Checks how many classes are asked for.

    Raises:
        InvalidRequest: if the model has not so many, or none is asked for.
    """
    if not 1 <= top_k <= model.classes:
        raise InvalidRequest(
            "top_k", f"expected 1 to {model.classes} for model {model.name}, got {top_k}"
        )


def read_pixels(request: PixelsRequest, model: ModelDescription, max_images: int) -> Pixels:
    """Returns the images of a request, uint8 [N, H, W, C], a view of its bytes.

    Args:
        request: with images as pixels.
        model: that is to classify them.
        max_images: most images in one request.

    Raises:
        InvalidRequest: if they are not what the model expects.
    """
    if request.size == NO_INPUT:
        raise InvalidRequest("input", "expected pixels or encoded images, got neither")
    if not model.is_bundle:
        raise NotABundle(model.name)
    count, *given = request.shape
    shape = height, width, channels = model.image_shape
    if given != [height, width, channels]:
        for field, has, must in zip(("height", "width", "channels"), given, shape, strict=True):
            if has != must:
                raise InvalidRequest(
                    f"pixels.{field}", f"expected {must} for model {model.name}, got {has}"
                )
    if not 1 <= count <= max_images:
        raise InvalidRequest("pixels.count", f"expected 1 to {max_images}, got {count}")
    size = count * height * width * channels
    if request.size != size:
        raise InvalidRequest(
            "pixels.data",
            f"expected {size} bytes for {count} images of {height} x {width} x {channels}, "
            f"got {request.size}",
        )
    return np.frombuffer(request.buffer, np.uint8, size, request.at).reshape(request.shape)
