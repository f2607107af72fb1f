"""What pictures of a data set are like, whatever they show, by the measures of the server, too."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convserve_imaging import measures
from convserve_trainer.datasets.pictures import Pictures, Pixels
from convserve_trainer.evaluation.predict import Probabilities

Traits: TypeAlias = Mapping[str, npt.NDArray[np.float32]]
"""Float32 [N] by the name of the trait, one of TRAITS: a value for each picture, in their order."""

#: Each with its unit. Brightness and contrast are those of the pixels that the net is given, 0 to
#: 255; a size is the square root of a file's pixels, before they are brought to the net's size.
TRAITS = {"brightness": "levels of 255", "contrast": "levels of 255", "size": "pixels a side"}

_BATCH = 50  # pictures


class Watch:
    """A net that notes brightness and contrast of the pictures that it is asked about.

    So that pictures which are decoded when they are needed are decoded once.

    Args:
        net: of uint8 [N, H, W, C] makes float32 [N, K].
    """

    def __init__(self, net: Callable[[Pixels], Probabilities]) -> None:
        self._net = net
        self._found: list[npt.NDArray[np.float32]] = []

    def __call__(self, pixels: Pixels) -> Probabilities:
        """Returns what the net says: float32 [N, K] for uint8 [N, H, W, C]."""
        self._found.append(measures.light(pixels))
        return self._net(pixels)

    def traits(self, pictures: Pictures) -> dict[str, npt.NDArray[np.float32]]:
        """Returns the traits of the pictures that the net was asked about.

        Args:
            pictures: all of them, in their order.
        """
        return _named(self._found, pictures)


def measure(
    pictures: Pictures, numbers: npt.NDArray[np.integer]
) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the traits of some pictures, without asking a net.

    Args:
        pictures: of which these are some.
        numbers: int [N], theirs; one or more.

    Raises:
        DataError: too many pictures cannot be read.
    """
    found = [measures.light(pixels) for pixels, _ in pictures.batches(map(int, numbers), _BATCH)]
    sizes = pictures.sizes
    return _named(found, pictures, None if sizes is None else sizes[numbers])


def _named(
    found: list[npt.NDArray[np.float32]],
    pictures: Pictures,
    sizes: npt.NDArray[np.integer] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    brightness, contrast = np.concatenate(found, axis=1)
    named = {"brightness": brightness, "contrast": contrast}
    sizes = pictures.sizes if sizes is None else sizes
    # Where a picture was lost meanwhile, nobody knows which size is whose.
    if sizes is not None and len(sizes) == len(brightness):
        named["size"] = measures.sides(sizes)
    return named
