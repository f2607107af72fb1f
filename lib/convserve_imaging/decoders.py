"""How image files become what a model expects, by the method that made its pixels in training."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from convserve_imaging import (
    MNIST_CENTRE,
    PHOTO_METHODS,
    PICTURE_METHODS,
    PIXELS,
    photos,
    pictures,
    pixels,
)
from convserve_imaging.digits import centre

Pixels = NDArray[np.uint8]

#: Makes of a file the pixels for a model, uint8 [H, W, C]; raises PictureError.
Decode = Callable[[bytes], Pixels]

#: What digits and pixels may come as. Pillow reads many more formats, which a program that gets
#: files from anybody should not. What photographs may come as is a part of their method.
_FORMATS = ("JPEG", "PNG")


def make_decoder(
    method: str, shape: tuple[int, int, int], max_pixels: int, max_decoder_bytes: int
) -> Decode:
    """Returns the function that made the pixels in training.

    Args:
        method: its name, of convserve_imaging.METHODS.
        shape: of an image, (H, W, C).
        max_pixels: most pixels of a file by its header.
        max_decoder_bytes: most memory that decoding a file may take, by its header.
    """
    height, width, channels = shape
    decoders: dict[str, Callable[..., Pixels]] = {
        MNIST_CENTRE: partial(centre, formats=_FORMATS),
        PIXELS: partial(
            pixels.decode, height=height, width=width, channels=channels, formats=_FORMATS
        ),
    }
    for methods, decode in ((PHOTO_METHODS, photos.decode), (PICTURE_METHODS, pictures.decode)):
        for photo_channels, name in methods.items():
            decoders[name] = partial(decode, height=height, width=width, channels=photo_channels)
    # Every kind honours every limit: what is added without one cannot be called.
    return partial(decoders[method], max_pixels=max_pixels, max_decoder_bytes=max_decoder_bytes)
