"""How the files of a request become what a model expects, by the method that made its pixels."""

from collections.abc import Callable
from functools import partial

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
from convserve_server.core.decode_pool import Decode, Pixels

#: What digits and pixels may come as. Pillow reads many more formats, which a server should not.
#: What photographs may come as is a part of their method.
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
