"""How a net does on held-out pictures that are changed on purpose, each in one known way.

Nothing is drawn at random but the noise, whose seed is fixed: a net meets the same pixels each
time.

Source: the kinds for photographs are of D. Hendrycks and T. Dietterich, "Benchmarking neural
    network robustness to common corruptions and perturbations", 2019; the amounts are ours.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, ImageKind
from convserve_trainer.datasets.pictures import Pictures, Pixels
from convserve_trainer.evaluation.intervals import SomeRight
from convserve_trainer.evaluation.predict import BATCH, Probabilities

SHIFT = 1 / 7  # of the side: 4 of a digit's 28 pixels
TURN = 20  # degrees
LOW_CONTRAST = 0.25  # of the contrast that there was
GREY = 128  # of 255, what black becomes
BRIGHTNESS = 76  # of 255, that is added or taken away
BLUR = 0.012  # of the side, standard deviation
JPEG_QUALITY = 10
NOISE = 25  # of 255, standard deviation
MOST, MOST_PHOTOS = 10_000, 1_000  # pictures that are changed; any first part is a fair sample

Change: TypeAlias = Callable[[Pixels], Pixels]
"""Of uint8 [N, H, W, C] makes others of the same shape."""


@dataclass(frozen=True)
class Corrupted(SomeRight):
    """How a net does on pictures that are changed in one way.

    Attributes:
        change: what is done to them: "inverted".
        pictures: so many, one or more.
        correct: of which so many are right.
    """

    change: str
    pictures: int
    correct: int

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON."""
        return asdict(self) | {"accuracy": self.accuracy, "interval": self.interval}


def corrupted(
    net: Callable[[Pixels], Probabilities], pictures: Pictures, kind: ImageKind.ValueType
) -> list[Corrupted]:
    """Returns how a net does on each of the changes.

    Args:
        net: of uint8 [N, H, W, C] makes float32 [N, K].
        pictures: one or more; the first MOST, or MOST_PHOTOS, of them are read, once.
        kind: of them; decides which changes there are.

    Raises:
        DataError: too many pictures cannot be read.
    """
    count, right = 0, dict[str, int]()
    most = min(len(pictures), MOST_PHOTOS if kind == IMAGE_KIND_PHOTO else MOST)
    for pixels, labels in pictures.batches(range(most), BATCH):
        count += len(labels)
        for name, change in changes(kind, pixels.shape[1:3]).items():
            found = int((net(change(pixels)).argmax(axis=1) == labels).sum())
            right[name] = right.get(name, 0) + found
    return [Corrupted(name, count, correct) for name, correct in right.items()]


def changes(kind: ImageKind.ValueType, size: Sequence[int]) -> dict[str, Change]:
    """Returns what is done to pictures of a kind, by name.

    Args:
        kind: photographs have other changes than digits and other small pictures.
        size: rows and columns of a picture.
    """
    if kind == IMAGE_KIND_PHOTO:
        return {
            "brighter": lambda pixels: _levels(pixels, 1, BRIGHTNESS),
            "darker": lambda pixels: _levels(pixels, 1, -BRIGHTNESS),
            "low contrast": _low_contrast,
            "blurred": _blurred,
            f"JPEG of quality {JPEG_QUALITY}": _compressed,
            "noise": _noisy,
        }
    far = round(min(size) * SHIFT)
    return {
        f"shifted by {far} pixels": lambda pixels: _shifted(pixels, far),
        f"turned by {TURN} degrees": _turned,
        "inverted": lambda pixels: _levels(pixels, -1, 255),
        "low contrast": _low_contrast,
        "grey ground": lambda pixels: _levels(pixels, (255 - GREY) / 255, GREY),
    }


def _levels(pixels: Pixels, factor: float, added: float) -> Pixels:
    """Returns each level times a factor, and something added, rounded and within 0 to 255."""
    table = np.arange(256) * factor + added
    levels: Pixels = np.rint(np.clip(table, 0, 255)).astype(np.uint8)
    return levels[pixels]


def _low_contrast(pixels: Pixels) -> Pixels:
    return _levels(pixels, LOW_CONTRAST, (1 - LOW_CONTRAST) * 127.5)


def _shifted(pixels: Pixels, far: int) -> Pixels:
    """Returns the pictures, in turn right, left, down and up; what comes in is black."""
    moved = np.zeros_like(pixels)
    kept, gone = slice(far, None), slice(None, pixels.shape[1] - far)
    moved[2::4, kept], moved[3::4, gone] = pixels[2::4, gone], pixels[3::4, kept]
    gone = slice(None, pixels.shape[2] - far)
    moved[0::4, :, kept], moved[1::4, :, gone] = pixels[0::4, :, gone], pixels[1::4, :, kept]
    return moved


def _turned(pixels: Pixels) -> Pixels:
    """Returns the pictures, turned in turn to the left and to the right; what comes in is black."""
    degrees = [TURN, -TURN]
    pictures = [
        image.rotate(degrees[number % 2], Image.Resampling.BILINEAR)
        for number, image in enumerate(map(_image, pixels))
    ]
    return _stacked(pictures, pixels)


def _blurred(pixels: Pixels) -> Pixels:
    blur = ImageFilter.GaussianBlur(BLUR * min(pixels.shape[1:3]))
    return _stacked([_image(each).filter(blur) for each in pixels], pixels)


def _compressed(pixels: Pixels) -> Pixels:
    found = []
    for each in pixels:
        file = io.BytesIO()
        _image(each).save(file, "JPEG", quality=JPEG_QUALITY)
        found.append(Image.open(file))
    return _stacked(found, pixels)


def _noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, NOISE, pixels.shape)
    noisy: Pixels = np.rint(np.clip(pixels + noise, 0, 255)).astype(np.uint8)
    return noisy


def _image(pixels: Pixels) -> Image.Image:
    """Returns a picture of uint8 [H, W, 1] or [H, W, 3]."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _stacked(images: Sequence[Image.Image], like: Pixels) -> Pixels:
    values: npt.NDArray[np.uint8] = np.stack([np.asarray(image) for image in images])
    return values.reshape(like.shape)
