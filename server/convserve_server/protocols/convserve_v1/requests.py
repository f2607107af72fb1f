"""What a request must be, and its images as an array."""

import numpy as np

from convserve_protos import classifier_pb2 as pb
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import InvalidRequest, NotABundle
from convserve_server.core.models import VersionChoice
from convserve_server.engines.base import Pixels

_MAX_ID_BYTES = 128

#: See PixelsRequest.
NO_INPUT = -1
#: Made once: NumPy needs as long again for it as for an array.
_UINT8 = np.dtype(np.uint8)

#: The bytes before the fields id and model, and the first byte of a length that has more than one.
_ID_KEY = pb.ClassifyRequest.ID_FIELD_NUMBER << 3 | 2
_MODEL_KEY = pb.ClassifyRequest.MODEL_FIELD_NUMBER << 3 | 2
_LONG = 0x80


class PixelsRequest:
    """What a request with images as pixels says, and all that differ from it in their pixels alone.

    Args:
        request_id: repeated in the answer.
        model: its name.
        version: of the model, or a label; None for the newest.
        top_k: only so many classes of each image; None for all.
        shape: count, height, width, channels.
        at: index of the first pixel in the bytes that have them.
        size: bytes of the pixels; NO_INPUT: the request has neither pixels nor files.

    Attributes:
        accepted: the model for which it was checked last, and the beginning of its answers; None
            while it was not. One value, since any thread may have it checked for another model.
    """

    __slots__ = ("accepted", "at", "model", "request_id", "shape", "size", "top_k", "version")

    def __init__(
        self,
        request_id: str,
        model: str,
        version: VersionChoice,
        top_k: int | None,
        shape: tuple[int, int, int, int],
        at: int,
        size: int,
    ) -> None:
        self.request_id = request_id
        self.model = model
        self.version = version
        self.top_k = top_k
        self.shape = shape
        self.at = at
        self.size = size
        self.accepted: tuple[ModelDescription, bytes] | None = None

    def pixels(self, buffer: bytes) -> Pixels:
        """Returns the images of a request that is accepted, uint8 [N, H, W, C], a view.

        Args:
            buffer: bytes in which the pixels lie.
        """
        return np.ndarray(self.shape, _UINT8, buffer, self.at)


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


def check_pixels(request: PixelsRequest, model: ModelDescription, max_images: int) -> None:
    """Checks what a request says of its images.

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
