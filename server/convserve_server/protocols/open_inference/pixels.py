"""The images of a request to a bundle: pixels as bytes or as floats, or files."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convserve_protos import open_inference_pb2 as pb
from convserve_server.core.descriptions import ModelDescription
from convserve_server.core.errors import InvalidRequest
from convserve_server.engines.base import Pixels
from convserve_server.engines.signatures import OPEN
from convserve_server.protocols.open_inference.contents import (
    check_rows,
    checked_shape,
    elements,
    files_of,
    matched_inputs,
    wrong_datatype,
    wrong_shape,
)

#: What pixels can be sent as.
_DATATYPES = "UINT8, FP32 or BYTES"
_WHITE = 255


def read_pixels(request: pb.ModelInferRequest, model: ModelDescription, max_images: int) -> Pixels:
    """Returns the images of a request that are not files, uint8 [N, H, W, C].

    Of UINT8 a view of the message's bytes; FP32 is rounded to the nearest whole number, halves to
    the even one.

    Args:
        request: to a bundle.
        model: that is to classify them.
        max_images: most images in one request.

    Raises:
        InvalidRequest: if they are not what the model expects.
    """
    ((_, tensor),) = matched_inputs(request, model)
    datatype = tensor.datatype
    if datatype not in ("UINT8", "FP32"):
        raise wrong_datatype(0, datatype, _DATATYPES, model)
    shape = checked_shape(0, tensor, model.signature.inputs[0], model)
    check_rows(0, shape[0], model, max_images)
    given: NDArray[Any] = elements(request, 0, datatype, shape)
    if datatype == "UINT8":
        pixels: Pixels = given
        return pixels
    # Not a number is found by both, and in no range. Half as expensive as min() and max().
    low, high = given.item(given.argmin()), given.item(given.argmax())
    if not (low >= 0 and high <= _WHITE):
        worst = high if low >= 0 else low
        raise InvalidRequest(
            "inputs[0]", f"expected FP32 from 0 to {_WHITE} for model {model.name}, got {worst:g}"
        )
    rounded: Pixels = np.rint(given).astype(np.uint8)
    return rounded


def read_files(
    request: pb.ModelInferRequest, model: ModelDescription, max_images: int
) -> list[bytes]:
    """Returns the files of a request, one an image.

    Args:
        request: to a bundle, whose input is of BYTES.
        model: that is to classify them.
        max_images: most images in one request.

    Raises:
        InvalidRequest: if they are not what the model expects.
    """
    ((_, tensor),) = matched_inputs(request, model)
    shape = tuple(tensor.shape[:3])
    if shape[1:] not in ((), (1,)) or shape[:1] < (0,):
        raise wrong_shape(0, tensor, f"[{OPEN}] or [{OPEN}, 1] of BYTES", model)
    check_rows(0, shape[0], model, max_images)
    return files_of(request, shape[0])
