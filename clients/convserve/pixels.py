"""What a caller hands over, as one batch: uint8 [N, H, W, C]."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from convserve.errors import InvalidRequest
from convserve.pillow_pictures import check_pixels

Batch = npt.NDArray[np.uint8]

EXPECTED = "uint8 [H, W], [N, H, W], [H, W, C] or [N, H, W, C] with C of 1 or 3"


def as_batch(pixels: npt.ArrayLike) -> Batch:
    """Brings one image or many into the one shape that the protocol has.

    Three dimensions are one image [H, W, C] if the last one is 1 or 3 (no picture is that narrow),
    and N grey images [N, H, W] otherwise.

    Args:
        pixels: uint8, 0 to 255, not scaled: [H, W], [N, H, W], [H, W, C] or [N, H, W, C] with C of
            1 (grey) or 3 (RGB). Anything that NumPy makes such an array of will do as well, such
            as a list of images, or a picture of Pillow of mode L or RGB.

    Returns:
        uint8 [N, H, W, C]; shares memory with pixels where that is possible.

    Raises:
        InvalidRequest: Not uint8, empty, or not of such a shape; or a picture of Pillow whose
            values are not pixels, such as indices in a palette.
    """
    check_pixels("pixels", pixels)
    try:
        array = np.asarray(pixels)
    except (TypeError, ValueError) as error:
        # What NumPy says of lists whose images differ in size is long and names no image.
        why = "images of different shapes" if isinstance(pixels, (list, tuple)) else str(error)
        raise InvalidRequest.expected("pixels", EXPECTED, why) from error
    if array.size == 0:
        raise InvalidRequest.expected(
            "pixels", f"one image at least, {EXPECTED}", f"nothing, of shape {_shape(array)}"
        )
    if array.dtype != np.uint8:
        raise InvalidRequest.expected("pixels", EXPECTED, _about_dtype(array, pixels))
    if array.ndim == 2:
        return array[np.newaxis, :, :, np.newaxis]
    if array.ndim == 3:
        return array[np.newaxis] if array.shape[-1] in (1, 3) else array[..., np.newaxis]
    if array.ndim == 4 and array.shape[-1] in (1, 3):
        return array
    raise InvalidRequest.expected("pixels", EXPECTED, f"shape {_shape(array)}")


def _shape(array: npt.NDArray[np.generic]) -> str:
    return "[" + ", ".join(str(length) for length in array.shape) + "]"


def _about_dtype(array: npt.NDArray[np.generic], pixels: object) -> str:
    dtype = array.dtype
    if np.issubdtype(dtype, np.floating):
        advice = (
            ': pass (pixels * 255).round().astype("uint8") if the values are 0 to 1,'
            ' pixels.round().astype("uint8") if they are 0 to 255'
        )
    elif dtype == np.bool_:
        advice = ': pass pixels.astype("uint8") * 255'
    elif np.issubdtype(dtype, np.integer):
        advice = ': pass pixels.astype("uint8") if the values are 0 to 255'
    elif dtype.kind in "SU" or isinstance(pixels, os.PathLike):
        advice = "; picture files go to classify_images"
    elif not array.ndim:
        return type(pixels).__name__
    else:
        advice = ""
    return f"{dtype}{advice}"
