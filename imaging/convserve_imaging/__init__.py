"""The one way bytes become pixels, in training and in serving."""

MNIST_CENTRE = "mnist-centre/1"
"""Name and version of `digits.centre`, for `Manifest.input.resize`; other pixels, other version."""

PHOTO_BILINEAR = "photo-bilinear/1"
"""Name and version of `photos.decode`."""

METHODS = frozenset({MNIST_CENTRE, PHOTO_BILINEAR})
"""All that this version knows."""
