"""A small set of photographs, made in seconds: digits of two classes in coloured scenes.

    folder/train/ones/0001.jpg, folder/train/zeros/..., folder/validation/...

Real JPEG files of varied size, quality, colour and orientation, with MNIST's own digits in them:
those of the training set in train, the held-out ones in validation.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from convserve_trainer.datasets.mnist import Dataset

CLASSES = {"ones": 1, "zeros": 0}
TRAIN, VALIDATION = 1000, 200
"""Photographs of each class."""

_SIDES = (80, 400)  # pixels, shortest and longest
_TURNS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
"""What is done to the pixels of a picture whose Exif orientation undoes it."""


def make(folder: Path, dataset: Dataset) -> None:
    """Write the set, whole or not at all; leaves one that is there alone.

    Raises:
        OSError: if it cannot be written.
    """
    if folder.is_dir():
        return
    hidden = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(hidden, ignore_errors=True)
    parts = (
        ("train", dataset.train_images, dataset.train_labels, TRAIN),
        ("validation", dataset.test_images, dataset.test_labels, VALIDATION),
    )
    jobs = []
    for part, images, labels, count in parts:
        for name, class_ in CLASSES.items():
            class_folder = hidden / part / name
            class_folder.mkdir(parents=True)
            chosen = images[labels == class_][:count, :, :, 0]
            jobs += [
                # A scene of its own for each: none of the training is met again in validation.
                (digit, class_folder / f"{number:04}.jpg", (len(part), class_, number))
                for number, digit in enumerate(chosen)
            ]
    with ThreadPoolExecutor() as pool:
        # Through a list, so that what goes wrong in a thread is raised here.
        list(pool.map(lambda job: _write(*job), jobs))
    hidden.rename(folder)


def _write(digit: NDArray[np.uint8], path: Path, seed: tuple[int, int, int]) -> None:
    random = np.random.default_rng(seed)
    turn = random.choice([1, 1, 1, 3, 6])
    picture = scene(digit, random)
    if (transpose := _TURNS[int(turn)]) is not None:
        picture = picture.transpose(transpose)
    exif = Image.Exif()
    exif[0x0112] = int(turn)
    picture.save(path, "JPEG", quality=int(random.integers(60, 96)), exif=exif)


def scene(digit: NDArray[np.uint8], random: np.random.Generator) -> Image.Image:
    """A digit, uint8 [28, 28], in ink of one colour on a mottled ground of another."""
    width, height = (int(side) for side in random.integers(*_SIDES, 2))
    ink, ground = _colours(random)
    mottle = random.normal(0, 25, (max(2, height // 24), max(2, width // 24), 3))
    spots = Image.fromarray(np.clip(ground + mottle, 0, 255).astype(np.uint8))
    picture = spots.resize((width, height), Image.Resampling.BICUBIC)
    side = int(min(width, height) * random.uniform(0.6, 0.95))
    mask = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    mask = mask.filter(ImageFilter.GaussianBlur(side / 120))
    corner = (int(random.integers(0, width - side + 1)), int(random.integers(0, height - side + 1)))
    where = (*corner, corner[0] + side, corner[1] + side)
    picture.paste(tuple(int(level) for level in ink), where, mask)
    return picture


def _colours(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two colours that an eye can tell apart: their brightness differs by a third at least."""
    while True:
        one, other = random.uniform(0, 255, (2, 3))
        if abs(one.mean() - other.mean()) > 85:
            return one, other
