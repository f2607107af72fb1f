"""The one way bytes become pixels, in training and in serving."""

from collections.abc import Mapping
from types import MappingProxyType

MNIST_CENTRE = "mnist-centre/1"
"""Name and version of `digits.centre`, for `Manifest.input.resize`; other pixels, other version."""

PHOTO_BILINEAR = "photo-bilinear/1"
"""Name and version of `photos.decode`."""

METHODS: Mapping[str, tuple[int | None, int | None, int]] = MappingProxyType(
    {MNIST_CENTRE: (28, 28, 1), PHOTO_BILINEAR: (None, None, 3)}
)
"""All that this version knows, and what they make: (H, W, C), None where the caller chooses."""
