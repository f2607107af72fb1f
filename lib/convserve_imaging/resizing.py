"""Brings pixels to the size that a net expects, by bilinear convolution."""

import numpy as np
import numpy.typing as npt
from cykooz_resizer import (
    CropBox,
    FilterType,
    ImageData,
    PixelType,
    ResizeAlg,
    ResizeOptions,
    Resizer,
)

_BILINEAR = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.bilinear), use_alpha=False)


def resized(
    picture: npt.NDArray[np.uint8],
    rows: int,
    columns: int,
    part: tuple[float, float] | None = None,
) -> npt.NDArray[np.uint8]:
    """Returns a picture in another size; the aspect ratio is not kept.

    The triangle filter's support is widened when shrinking, so that nothing aliases. It computes in
    integers: the same pixels on every CPU.

    Args:
        picture: uint8 [H, W, 3].
        rows: of the result, 1 or more.
        columns: of the result, 1 or more.
        part: rows and columns of the picture that the result shows, from its first ones, above 0;
            None for all.

    Returns:
        uint8 [rows, columns, 3].
    """
    height, width, _ = picture.shape
    if (height, width) == (rows, columns) and part in (None, (height, width)):
        return picture
    options = _BILINEAR
    if part is not None:
        options = options.copy()
        options.crop_box = CropBox(0.0, 0.0, part[1], part[0])
    source = ImageData(width, height, PixelType.U8x3, picture.tobytes())
    target = ImageData(columns, rows, PixelType.U8x3)
    Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(rows, columns, 3)
