"""The JPEGs that are decoded: photographs from a folder, or scenes made up here."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.command import BenchmarkError, tell
from convserve_imaging.errors import PictureError
from convserve_imaging.jpeg import read_header
from convserve_imaging.photos import decode

_SUFFIXES = (".jpg", ".jpeg")
#: About the mean size of the photographs of cats and dogs that image classifiers learn from.
_SIZE = (500, 375)
_QUALITY = 90
#: Structure from large to small: cells across the picture, and how strong, in levels.
_OCTAVES = ((3, 50.0), (8, 30.0), (25, 18.0), (80, 10.0), (250, 6.0))
_OBJECTS = 12


@dataclass(frozen=True)
class Pictures:
    """JPEG files.

    Args:
        files: their bytes.
        about: a description for the table.
    """

    files: tuple[bytes, ...]
    about: str


def pictures(folder: Path | None, count: int, seed: int = 0) -> Pictures:
    """Photographs from a folder, always the same ones; made-up scenes without one.

    Photographs that cannot be decoded are left out, and those that lie on their side by their Exif
    orientation: Pillow alone does not turn them.

    Raises:
        BenchmarkError: if there are none.
    """
    if folder is None:
        tell("no --photos: decoding made-up scenes")
        made = tuple(_scene(np.random.default_rng((seed, number))) for number in range(count))
        return Pictures(made, _about(made, "made-up scenes"))
    if not folder.is_dir():
        raise BenchmarkError(f"--photos: there is no folder {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    random.Random(seed).shuffle(found)
    taken: list[bytes] = []
    left_out = 0
    for path in found:
        if len(taken) == count:
            break
        data = path.read_bytes()
        if _is_plain(data):
            taken.append(data)
        else:
            left_out += 1
    if left_out:
        tell(f"left out {left_out} JPEGs that are damaged or lie on their side")
    if not taken:
        raise BenchmarkError(f"--photos: there is no JPEG that can be decoded in {folder}")
    return Pictures(tuple(taken), _about(taken, "photographs"))


def _is_plain(data: bytes) -> bool:
    try:
        decode(data, 8, 8)
    except PictureError:
        return False
    return read_header(data).orientation == 1


def _about(files: Sequence[bytes], what: str) -> str:
    kilobytes = np.mean([len(data) for data in files]) / 1e3
    headers = [read_header(data) for data in files]
    pixels = np.mean([header.width * header.height for header in headers]) / 1e6
    return f"{len(files)} {what}, {kilobytes:.1f} kB and {pixels:.2f} megapixels in the mean"


def _scene(random: np.random.Generator) -> bytes:
    """A JPEG with structure of all sizes and some edges, as a photograph has."""
    width, height = (int(side * random.uniform(0.85, 1.15)) for side in _SIZE)
    canvas = np.full((height, width, 3), random.uniform(70, 190, 3), np.float32)
    for cells, strength in _OCTAVES:
        canvas += strength * _texture(random, cells, width, height)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(_OBJECTS):
        (left, right), (top, bottom) = (np.sort(random.uniform(0, side, 2)) for side in _SIZE)
        colour = tuple(int(level) for level in random.integers(0, 256, 3))
        draw.ellipse((left, top, right, bottom), fill=(*colour, 90))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _texture(
    random: np.random.Generator, cells: int, width: int, height: int
) -> NDArray[np.float32]:
    """Smooth noise, float32 [height, width, 3], about -1 to 1; mostly grey, as things are."""
    shape = (max(1, cells * height // width), cells)
    noise = random.uniform(-1, 1, (*shape, 1)) + random.uniform(-0.3, 0.3, (*shape, 3))
    coarse = ((noise + 1.3) * (255 / 2.6)).astype(np.uint8)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float32) * (2.6 / 255) - 1.3
