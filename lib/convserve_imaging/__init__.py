"""The one way bytes become pixels, in training and in serving."""

from collections.abc import Mapping
from types import MappingProxyType

MNIST_CENTRE = "mnist-centre/1"
"""Name and version of what `digits.centre` makes, for `Manifest.input.resize`.

Of MNIST's own pictures it makes the same pixels in all of version 1; how it finds a digit on other
pictures may improve.
"""

PHOTO_BILINEAR = "photo-bilinear/1"
"""Name and version of `photos.decode`."""

PHOTO_BILINEAR_GREY = "photo-bilinear-grey/1"
"""Name and version of `photos.decode` for one channel."""

PHOTO_METHODS: Mapping[int, str] = MappingProxyType({3: PHOTO_BILINEAR, 1: PHOTO_BILINEAR_GREY})
"""How photographs are decoded, by the channels that they are given."""

PICTURE_BILINEAR = "picture-bilinear/1"
"""Name and version of `pictures.decode`: as `photo-bilinear/1` of a JPEG, and other formats."""

PICTURE_BILINEAR_GREY = "picture-bilinear-grey/1"
"""Name and version of `pictures.decode` for one channel."""

PICTURE_METHODS: Mapping[int, str] = MappingProxyType(
    {3: PICTURE_BILINEAR, 1: PICTURE_BILINEAR_GREY}
)
"""How photographs of several formats are decoded, by the channels that they are given."""

PIXELS = "pixels/1"
"""Name and version of `pixels.decode`."""

METHODS: Mapping[str, tuple[int | None, int | None, int | None]] = MappingProxyType(
    {
        MNIST_CENTRE: (28, 28, 1),
        PHOTO_BILINEAR: (None, None, 3),
        PHOTO_BILINEAR_GREY: (None, None, 1),
        PICTURE_BILINEAR: (None, None, 3),
        PICTURE_BILINEAR_GREY: (None, None, 1),
        PIXELS: (None, None, None),
    }
)
"""All that this version knows, and what they make: (H, W, C), None where the caller chooses."""
