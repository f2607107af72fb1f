"""Where pictures come from: the options that say it, and the pictures."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, Manifest
from convserve_trainer import manifest as manifests
from convserve_trainer.errors import UsageError
from convserve_trainer.pictures import Data, Pictures

if TYPE_CHECKING:
    from convserve_trainer import photos
    from convserve_trainer.recipe import Recipe

PHOTOS_ONLY = ("validation_split", "max_unreadable", "cache", "size", "validation_steps")

Say = Callable[[str], None]


def add_options(group: argparse._ActionsContainer) -> None:
    """Adds the options that training and evaluation have in common."""
    group.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="photos: folder with train and validation, in each a subfolder a class; digits: with "
        "MNIST's four files, gzip or not [default: the user's cache, or a download]",
    )
    group.add_argument(
        "--validation-split",
        metavar="SHARE",
        type=float,
        help="photos: DIR itself has the subfolders; hold out so much of it, chosen by the files' "
        "content, above 0 and below 1",
    )
    group.add_argument(
        "--max-unreadable",
        metavar="SHARE",
        type=float,
        help="photos: share of files that may be unreadable, 0 to 1 [default: 0.01]",
    )


def training(options: argparse.Namespace, recipe: "Recipe", say: Say) -> Callable[[], Data]:
    """Returns what loads the data of a training.

    Raises:
        UsageError: an option does not suit the task, is out of its range or missing.
    """
    # Each kind of data imports its decoders when it is asked for.
    if options.task == "photos":
        from convserve_trainer import photos

        assert recipe.height is not None
        assert recipe.width is not None
        source = _photo_source(options, recipe.height, recipe.width, options.cache)
        return lambda: photos.load(source, recipe.limit, say)
    _refuse_photo_options(options)
    from convserve_trainer import digits, mnist

    return lambda: digits.data(mnist.load(options.data, say).limited(recipe.limit))


def held_out(options: argparse.Namespace, manifest: Manifest, say: Say) -> Pictures:
    """Returns held-out pictures of the kind that a bundle takes.

    Raises:
        UsageError: an option does not suit the bundle, is out of its range or missing.
        DataError: the data are missing, damaged or of other classes.
    """
    if manifest.input.kind == IMAGE_KIND_PHOTO:
        from convserve_trainer import photos

        source = _photo_source(options, manifest.input.height, manifest.input.width, None)
        return photos.held_out(source, manifest.labels, say)
    _refuse_photo_options(options)
    from convserve_trainer import digits, mnist

    return digits.data(mnist.load(options.data, say)).held_out


def model_name(options: argparse.Namespace) -> str:
    """Returns the name of a model that was given none: cats-dogs for photos in cats_dogs/."""
    if options.task == "digits":
        return "mnist"
    name: str = options.data.resolve().name.replace("_", "-").replace(" ", "-")
    return name if manifests.NAME.fullmatch(name) else "photos"


def _photo_source(
    options: argparse.Namespace, height: int, width: int, cache: str | None
) -> "photos.Source":
    from convserve_trainer import photos

    if options.data is None:
        raise UsageError("photos need --data DIR")
    split = options.validation_split
    if split is not None and not 0 < split < 1:
        raise UsageError(f"--validation-split is {split}; it takes more than 0 and less than 1")
    allowed = 0.01 if options.max_unreadable is None else options.max_unreadable
    if not 0 <= allowed <= 1:
        raise UsageError(f"--max-unreadable is {allowed}; it takes 0 to 1")
    return photos.Source(options.data, height, width, split, allowed, cache)


def _refuse_photo_options(options: argparse.Namespace) -> None:
    for name in PHOTOS_ONLY:
        if getattr(options, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for photos")
