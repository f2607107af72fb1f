"""Gathers what the topics work with, before anything is computed: errors come at once."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from convserve_imaging import PHOTO_BILINEAR, PICTURE_BILINEAR, pictures
from convserve_imaging.errors import PictureError
from convserve_imaging.jpeg_pixels import MAX_PIXELS
from convserve_imaging.picture_files import open_file
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, IMAGE_KIND_PHOTO
from convserve_trainer.datasets import (
    mnist,
    photo_folders,
    photo_methods,
    photo_reader,
    photos,
    skipped,
)
from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.parts import VALIDATION
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.errors import DataError, MissingDataError
from convserve_trainer.lecture import net, trials
from convserve_trainer.lecture.material import Material, Photographs, Pixels
from convserve_trainer.lecture.scales import Scale

SIDE = 150  # rows and columns of photographs where no net says another size
LARGE = 320  # the longer side of the one that is shown large
FORMATS = ("JPEG", *pictures.FORMATS)

Say = Callable[[str], None]


def gather(
    bundle: Path,
    data: Path | None,
    photo_bundle: Path | None,
    photo_data: Path | None,
    scale: Scale,
    say: Say,
) -> Material:
    """Returns the material, which prints no progress.

    Args:
        bundle: of the net for digits.
        data: folder with MNIST; None for the user's cache or a download.
        photo_bundle: of a net for photographs.
        photo_data: folder of photographs.
        scale: of the lecture.
        say: takes lines on what is read.

    Raises:
        BundleError: a bundle is none, of the wrong kind, or has no net.keras.
        DataError: pictures are missing or damaged, or their classes are not the net's.
    """
    digits_net = net.load(bundle, IMAGE_KIND_DIGITS)
    photo_net = None if photo_bundle is None else net.load(photo_bundle, IMAGE_KIND_PHOTO)
    photographs = None if photo_data is None else _photographs(photo_data, photo_net, scale, say)
    digits = mnist.load(data, say).limited(trials.recipe(digits_net).limit)
    shown = replace(
        digits,
        test_images=digits.test_images[: scale.held_out],
        test_labels=digits.test_labels[: scale.held_out],
    )
    return Material(
        net=digits_net,
        digits=shown,
        sha256=digits.sha256(),
        photo_net=photo_net,
        photographs=photographs,
        scale=scale,
        done=lambda share, what: None,
    )


def _photographs(folder: Path, photo_net: net.Net | None, scale: Scale, say: Say) -> Photographs:
    if not folder.is_dir():
        raise MissingDataError(f"no folder {skipped.shown(folder)}")
    held_out = folder / VALIDATION
    spec = None if photo_net is None else photo_net.manifest.input
    method = PHOTO_BILINEAR if spec is None else spec.resize
    choice = photo_folders.Choice(photo_methods.suffixes(method))
    found = photo_folders.classes(held_out if held_out.is_dir() else folder, choice)
    names = found.labels if photo_net is None else tuple(photo_net.manifest.labels)
    height, width = (SIDE, SIDE) if spec is None else (spec.height, spec.width)
    channels = 3 if spec is None else spec.channels
    source = Source(folder, height, width, channels=channels, method=method)
    held = photos.load_held_out(source, names, say)
    # Spread over all of them: they are sorted by class.
    count = min(len(held), scale.searched)
    numbers = np.linspace(0, len(held) - 1, count).astype(int).tolist()
    batches = list(held.batches(numbers, 100))
    return Photographs(
        np.concatenate([pixels for pixels, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
        names,
        _large(folder, [photo.path for photo in islice(found.photos, 100)]),
    )


def _large(folder: Path, contents: list[Content]) -> Pixels:
    """Returns the first that can be read, its longer side LARGE, its proportions kept."""
    for content in contents:
        try:
            opened = open_file(content.read_bytes(), FORMATS, MAX_PIXELS)
            lies = opened.orientation >= 5  # rows and columns change places
            sides = opened.size if lies else opened.size[::-1]
            height, width = (max(1, round(side * LARGE / max(sides))) for side in sides)
            return photo_reader.read(content, height, width, method=PICTURE_BILINEAR)
        except (OSError, PictureError):  # how many may be lost is counted where all are read
            continue
    raise DataError(f"{skipped.shown(folder)}: no picture that can be read")
