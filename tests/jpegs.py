"""Small JPEGs of one colour, whole and broken, and where the real ones are."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CONVSERVE_TEST_DATA", ROOT.parent / "shared" / "data"))

RGB = {"red": (200, 30, 40), "green": (30, 180, 40), "blue": (20, 40, 190)}


def jpeg_of(colour: str, size: tuple[int, int] = (240, 180), seed: int = 0) -> bytes:
    """A JPEG of a colour with some grain; size is (width, height)."""
    grain = np.random.default_rng(seed).integers(-20, 21, (size[1], size[0], 3))
    pixels = np.clip(np.array(RGB[colour]) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def folder(name: str) -> Path:
    """A folder of the real data; skips the test where it is not there."""
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"no {path}; CONVSERVE_TEST_DATA names the folder above it")
    return path


def odd_files() -> Iterator[tuple[str, str, bytes]]:
    """Name, class by the index ("ok", "error", ...) and bytes of every odd or broken file."""
    odd = folder("jpeg_odd")
    with (odd / "INDEX.tsv").open(newline="") as index:
        for row in csv.DictReader(index, delimiter="\t"):
            yield row["file"], row["class"], (odd / row["file"]).read_bytes()
