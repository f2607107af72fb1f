"""Made-up photographs, for want of real ones: JPEGs with edges and structure of all sizes."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

#: About the mean size of the photographs that image classifiers learn from: 500 x 375, 21 kB.
_SIZE = (500, 375)
_QUALITY = 90
#: Structure from large to small: cells across the picture, and how strong, in levels.
_OCTAVES = ((3, 50.0), (8, 30.0), (25, 18.0), (80, 10.0), (250, 6.0))
_OBJECTS = 12


def made_up_photo(seed: int) -> bytes:
    """Returns the JPEG that belongs to a number."""
    random = np.random.default_rng(seed)
    width, height = (int(side * random.uniform(0.85, 1.15)) for side in _SIZE)
    canvas = np.full((height, width, 3), random.uniform(70, 190, 3), np.float32)
    for cells, strength in _OCTAVES:
        canvas += strength * _texture(random, cells, width, height)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(_OBJECTS):
        (left, right), (top, bottom) = (np.sort(random.uniform(0, side, 2)) for side in _SIZE)
        red, green, blue = (int(level) for level in random.integers(0, 256, 3))
        draw.ellipse((left, top, right, bottom), fill=(red, green, blue, 90))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _texture(
    random: np.random.Generator, cells: int, width: int, height: int
) -> npt.NDArray[np.float32]:
    """Returns smooth noise, float32 [height, width, 3], about -1 to 1, mostly grey."""
    shape = (max(1, cells * height // width), cells)
    noise = random.uniform(-1, 1, (*shape, 1)) + random.uniform(-0.3, 0.3, (*shape, 3))
    coarse = ((noise + 1.3) * (255 / 2.6)).astype(np.uint8)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float32) * (2.6 / 255) - 1.3
