"""Where pictures come from: the options that say it, and the pictures."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_bundle.contract import is_name
from convserve_bundle.errors import BundleError
from convserve_imaging import mnist_files
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, Manifest
from convserve_trainer.datasets.pictures import Data, Pictures
from convserve_trainer.errors import UsageError

if TYPE_CHECKING:
    from convserve_trainer.datasets import photos
    from convserve_trainer.recipes.recipe import Recipe

PHOTOS_ONLY = ("validation_split", "max_unreadable", "cache", "size", "validation_steps")

Say = Callable[[str], None]


def add_options(group: argparse._ActionsContainer) -> None:
    """Adds the options that training and evaluation have in common."""
    group.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="photos: folder with train and validation, in each a subfolder a class; digits: with "
        "MNIST's four files, gzip or not, or four IDX files of those names with other pictures of "
        "any size [default: MNIST from the user's cache, or a download]",
    )
    group.add_argument(
        "--labels",
        metavar="NAME,NAME",
        type=lambda text: text.split(","),
        help="digits: names of the classes in DIR, in the order of their numbers [default: those "
        "in DIR/labels.txt, one a line, or the numbers]",
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
        from convserve_trainer.datasets import photos

        assert recipe.height is not None
        assert recipe.width is not None
        shape = recipe.height, recipe.width, recipe.channels
        source = _photo_source(options, shape, options.cache)
        return lambda: photos.load(source, recipe.limit, say)
    refuse_photo_options(options)
    from convserve_trainer.datasets import idx_sources

    # The floors of the recipes that come along are for MNIST; a sweep has none.
    given = "min_accuracy" in dict(options.settings)
    given = given or getattr(options, "min_accuracy", None) is not None
    ignore_accuracy_floor = not given and not options.recipe.endswith(".toml")
    return lambda: idx_sources.training(
        options.data, options.labels, recipe.limit, say, ignore_accuracy_floor=ignore_accuracy_floor
    )


def of_bundle(options: argparse.Namespace, manifest: Manifest, say: Say) -> Data:
    """Returns the data of a bundle's training, if the options name them.

    Raises:
        UsageError: an option does not suit the bundle, is out of its range or missing.
        BundleError: its recipe is damaged.
        DataError: the data are missing or damaged.
    """
    try:
        limit = json.loads(manifest.training.recipe_json)["limit"]
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(f"the bundle's recipe is damaged: {error!r}") from error
    if manifest.input.kind == IMAGE_KIND_PHOTO:
        from convserve_trainer.datasets import photos

        spec = manifest.input
        source = _photo_source(options, (spec.height, spec.width, spec.channels), None)
        return photos.load(source, limit, say)
    refuse_photo_options(options)
    from convserve_trainer.datasets import idx_sources

    return idx_sources.training(
        options.data, options.labels, limit, say, ignore_accuracy_floor=False
    )


def held_out(options: argparse.Namespace, manifest: Manifest, say: Say) -> Pictures:
    """Returns held-out pictures of the kind that a bundle takes.

    Raises:
        UsageError: an option does not suit the bundle, is out of its range or missing.
        DataError: the data are missing, damaged or of other classes.
    """
    if manifest.input.kind == IMAGE_KIND_PHOTO:
        from convserve_trainer.datasets import photos

        spec = manifest.input
        source = _photo_source(options, (spec.height, spec.width, spec.channels), None)
        return photos.held_out(source, manifest.labels, say)
    refuse_photo_options(options)
    from convserve_trainer.datasets import idx_sources

    return idx_sources.held_out(options.data, options.labels, manifest, say)


def model_name(options: argparse.Namespace) -> str:
    """Returns the name of a model that was given none: cats-dogs for pictures in cats_dogs/."""
    folder: Path | None = options.data
    if folder is None or options.task == "digits" and mnist_files.are_published(folder):
        return "mnist"
    name = folder.resolve().name.replace("_", "-").replace(" ", "-")
    fallback = "photos" if options.task == "photos" else "pictures"
    return name if is_name(name) else fallback


def _photo_source(
    options: argparse.Namespace, shape: tuple[int, int, int], cache: str | None
) -> "photos.Source":
    from convserve_trainer.datasets import photos

    if options.labels is not None:
        raise UsageError("--labels is for digits; photos have the names of their folders")
    if options.data is None:
        raise UsageError("photos need --data DIR")
    split = options.validation_split
    if split is not None and not 0 < split < 1:
        raise UsageError(f"--validation-split is {split}; it takes more than 0 and less than 1")
    allowed = 0.01 if options.max_unreadable is None else options.max_unreadable
    if not 0 <= allowed <= 1:
        raise UsageError(f"--max-unreadable is {allowed}; it takes 0 to 1")
    height, width, channels = shape
    return photos.Source(options.data, height, width, split, allowed, cache, channels)


def refuse_photo_options(options: argparse.Namespace) -> None:
    """Checks the options of a task that is not photos.

    Raises:
        UsageError: one is for photos.
    """
    for name in PHOTOS_ONLY:
        if getattr(options, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for photos")
