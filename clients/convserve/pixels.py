"""What a caller hands over, as one batch: uint8 [N, H, W, C]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from convserve.errors import InvalidRequest

Batch = npt.NDArray[np.uint8]

TAKEN = "uint8 [H, W], [N, H, W], [H, W, C] or [N, H, W, C] with C of 1 or 3"


def as_batch(pixels: npt.ArrayLike) -> Batch:
    """Brings one image or many into the one shape that the protocol has.

    Three dimensions are one image [H, W, C] if the last one is 1 or 3 (no picture is that narrow),
    and N grey images [N, H, W] otherwise.

    Args:
        pixels: uint8, 0 to 255, not scaled: [H, W], [N, H, W], [H, W, C] or [N, H, W, C] with C of
            1 (grey) or 3 (RGB). Anything that NumPy makes such an array of is taken too, such as
            a list of images.

    Returns:
        uint8 [N, H, W, C]; shares memory with pixels where that is possible.

    Raises:
        InvalidRequest: Not uint8, empty, or not of such a shape.
    """
    try:
        array = np.asarray(pixels)
    except ValueError as error:
        raise InvalidRequest.of(
            "pixels", f"images of different shapes do not make one array; taken: {TAKEN}"
        ) from error
    if array.dtype != np.uint8:
        raise InvalidRequest.of("pixels", _about_dtype(array.dtype))
    if array.size == 0:
        raise InvalidRequest.of(
            "pixels", f"was empty, of shape {_shape(array)}; at least one image is taken"
        )
    if array.ndim == 2:
        return array[np.newaxis, :, :, np.newaxis]
    if array.ndim == 3:
        return array[np.newaxis] if array.shape[-1] in (1, 3) else array[..., np.newaxis]
    if array.ndim == 4 and array.shape[-1] in (1, 3):
        return array
    raise InvalidRequest.of("pixels", f"was of shape {_shape(array)}; taken: {TAKEN}")


def _shape(array: npt.NDArray[np.generic]) -> str:
    return "[" + ", ".join(str(length) for length in array.shape) + "]"


def _about_dtype(dtype: np.dtype[np.generic]) -> str:
    if np.issubdtype(dtype, np.floating):
        advice = (
            'uint8 is taken, 0 to 255: pass (pixels * 255).round().astype("uint8") if the values '
            'are 0 to 1, pixels.round().astype("uint8") if they are 0 to 255'
        )
    elif dtype == np.bool_:
        advice = 'uint8 is taken, 0 to 255: pass pixels.astype("uint8") * 255'
    elif np.issubdtype(dtype, np.integer):
        advice = 'uint8 is taken: pass pixels.astype("uint8") if the values are 0 to 255'
    elif dtype.kind in "SU":
        advice = "uint8 is taken, 0 to 255; the bytes of picture files go to classify_images"
    else:
        advice = "uint8 is taken, 0 to 255"
    return f"was {dtype}; {advice}"
