"""The JPEGs that are decoded: photographs from a folder, or scenes made up."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.command import BenchmarkError, tell
from convserve_bench.made_up_photos import made_up_photo
from convserve_imaging.errors import PictureError
from convserve_imaging.jpeg import read_header
from convserve_imaging.photos import decode

_SUFFIXES = (".jpg", ".jpeg")
#: Scenes apart from each other by seed: no more than so many are made.
_MOST_SCENES = 10_000


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
        made = tuple(made_up_photo(seed * _MOST_SCENES + number) for number in range(count))
        return Pictures(made, _about(made, "made-up scenes"))
    if not folder.is_dir():
        raise BenchmarkError(f"--photos: there is no folder {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    random.Random(seed).shuffle(found)
    chosen: list[bytes] = []
    left_out = 0
    for path in found:
        if len(chosen) == count:
            break
        data = path.read_bytes()
        if _is_plain(data):
            chosen.append(data)
        else:
            left_out += 1
    if left_out:
        tell(f"left out {left_out} JPEGs that are damaged or lie on their side")
    if not chosen:
        raise BenchmarkError(f"--photos: there is no JPEG that can be decoded in {folder}")
    return Pictures(tuple(chosen), _about(chosen, "photographs"))


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
