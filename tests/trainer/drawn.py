"""Folders of small JPEGs whose classes differ in colour: real files, made in a moment."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CHANNELS = {"red": 0, "green": 1, "blue": 2}


def draw(folder: Path, classes: Mapping[str, int], seed: int = 0) -> Path:
    """Writes so many pictures of each colour into its class folder; sizes and content vary."""
    generator = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = generator.integers(24, 80, 2)
            pixels = generator.integers(0, 120, (height, width, 3), np.uint8)
            pixels[..., CHANNELS[name]] += 100
            Image.fromarray(pixels).save(folder / name / f"{number:03}.jpg", quality=90)
    return folder


def draw_parts(folder: Path, train: Mapping[str, int], validation: Mapping[str, int]) -> Path:
    """Writes a folder with train and validation."""
    draw(folder / "train", train, seed=1)
    draw(folder / "validation", validation, seed=2)
    return folder
