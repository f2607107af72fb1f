"""What a picture is like, whatever it shows: its brightness, its contrast, its size.

Source: brightness is the mean of the luma of ITU-R BT.601, contrast its standard deviation (RMS
    contrast): E. Peli, "Contrast in complex images", Journal of the Optical Society of America A 7,
    1990.
"""

import numpy as np
import numpy.typing as npt

from convserve_imaging.luma import WEIGHTS

#: Digits after the point: sums on another CPU may differ in the last bits.
_DIGITS = 4

_WEIGHTS = (np.array(WEIGHTS) / sum(WEIGHTS)).astype(np.float32)


def light(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns brightness and contrast, 0 to 255 and 0 to 127.5.

    Args:
        pixels: uint8 [N, H, W, C], C 1 or 3, as a net is given them.

    Returns:
        float32 [2, N].
    """
    if pixels.shape[-1] == 1:
        luma = pixels[..., 0].astype(np.float32)
    else:
        luma = pixels.astype(np.float32) @ _WEIGHTS
    return np.stack([luma.mean(axis=(1, 2)), luma.std(axis=(1, 2))])


def rounded(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Returns values of any measure, float32 [N], as they are counted and compared."""
    return np.round(values.astype(np.float64), _DIGITS).astype(np.float32)


def sides(sizes: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Returns the square root of the pixels of each picture, float32 [N].

    Args:
        sizes: int [N, 2], heights and widths.
    """
    found: npt.NDArray[np.float32] = np.sqrt(sizes.prod(axis=1, dtype=np.float32))
    return found
