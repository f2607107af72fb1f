"""The options that say which pictures a command reads, and the pictures."""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convserve_bundle.contract import is_name
from convserve_bundle.errors import BundleError
from convserve_bundle.manifest import is_softmax
from convserve_imaging import mnist_files
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.datasets import columns, photo_methods, registry
from convserve_trainer.datasets.parts import PARTS
from convserve_trainer.datasets.pictures import Data, Pictures, Source
from convserve_trainer.datasets.registry import Say, Task
from convserve_trainer.errors import DataError, UsageError

if TYPE_CHECKING:
    from convserve_trainer.recipes.recipe import Recipe

#: Those of all tasks.
NAMES = sorted({name for task in registry.TASKS for name in task.options})


def add(group: argparse._ActionsContainer, *, several: bool = False) -> None:
    """Adds the options that training and evaluation have in common.

    Args:
        group: that is given them.
        several: whether `--data` may be given more than once; its value is a list then.
    """
    more = "; several times: several data sets" if several else ""
    group.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        action="append" if several else "store",
        help="photos: folder with train and validation, in each a subfolder a class; digits: with "
        "MNIST's four files, gzip or not, or four IDX files of those names with other pictures of "
        f"any size{more} [default: MNIST from the user's cache, or a download]; photos also: a CSV "
        "or Parquet file, or a folder of Parquet files, with the columns path or image, label (or "
        "labels, several each) and perhaps split (train, validation or test); or a folder as "
        "Hugging Face's datasets have it",
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
    add_files(group)


def add_files(group: argparse._ActionsContainer) -> None:
    """Adds the options that say where pictures are in a folder, or in a list."""
    group.add_argument(
        "--subfolders",
        choices=["skip", "use"],
        help="photos: what is in folders within a class's folder: not used, or pictures of that "
        "class [default: skip]",
    )
    add_columns(group)


def add_columns(group: argparse._ActionsContainer) -> None:
    """Adds the option that names the columns of a list."""
    group.add_argument(
        "--columns",
        metavar="PAIRS",
        type=_columns,
        help="photos: names of columns in a CSV, in Parquet or in metadata, where they are not the "
        "usual ones: picture=NAME,label=NAME,split=NAME",
    )


def add_formats(group: argparse._ActionsContainer) -> None:
    """Adds the option that says of which formats pictures are."""
    group.add_argument(
        "--formats",
        choices=["jpeg", "all"],
        help="photos: which files are pictures: JPEG, or PNG, WebP and GIF (the first frame) as "
        "well; the bundle then says so, and needs a server that has them [default: jpeg]",
    )


def add_part(group: argparse._ActionsContainer) -> None:
    """Adds the option that says which part of the data is evaluated."""
    group.add_argument(
        "--part",
        choices=PARTS,
        help="photos: which part of the data [default: validation; without one test; without "
        "parts all]",
    )


def add_training(group: argparse._ActionsContainer) -> None:
    """Adds the options that say which pictures are trained on."""
    add(group)
    add_formats(group)
    group.add_argument(
        "--cache",
        choices=["none", "memory", "disk"],
        help="photos: where decoded pixels are kept for the next epoch [default: memory up to a "
        "GiB and a quarter of it, then disk within --cache-gb, then memory up to a quarter, else "
        "none]; disk: in the user's cache, for the next training as well",
    )
    group.add_argument(
        "--cache-gb",
        metavar="GB",
        type=float,
        help="photos: most that decoded pixels of all data sets may fill on disk; those that were "
        "used longest ago are removed for others [default: a quarter of what is free]",
    )
    group.add_argument(
        "--limit",
        metavar="IMAGES",
        type=int,
        help="train on the first so many only, 1 or more [default: all]",
    )


def check(options: argparse.Namespace, task: Task) -> None:
    """Checks that the options are for a task.

    Raises:
        UsageError: one is for another task.
    """
    registry.check_options(
        task, [name for name in NAMES if getattr(options, name, None) is not None]
    )


def training(options: argparse.Namespace, recipe: "Recipe", say: Say) -> Callable[[], Data]:
    """Returns what loads the data of a training.

    Raises:
        UsageError: an option does not suit the task, is out of its range or missing.
    """
    task = registry.find_task(options.task)
    # The floors of the recipes that come along are for MNIST; a sweep has none.
    given = "min_accuracy" in dict(options.settings)
    given = given or getattr(options, "min_accuracy", None) is not None
    source = _source(
        options,
        task,
        (recipe.height, recipe.width, recipe.channels),
        ignore_accuracy_floor=not given and not options.recipe.endswith(".toml"),
    )
    reader = registry.find_format(task, source.folder).reader
    return lambda: reader.load(source, recipe.limit, say)


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
    task = registry.task_of_kind(manifest.input.kind)
    source = _bundle_source(options, manifest, task)
    return registry.find_format(task, source.folder).reader.load(source, limit, say)


def held_out(options: argparse.Namespace, manifest: Manifest, say: Say) -> Pictures:
    """Returns held-out pictures for a bundle.

    Raises:
        UsageError: an option does not suit the bundle, is out of its range or missing.
        DataError: the data are missing, damaged or of other classes.
    """
    task = registry.task_of_kind(manifest.input.kind)
    source = _bundle_source(options, manifest, task)
    pictures = registry.find_format(task, source.folder).reader.held_out(source, manifest, say)
    several = pictures.labels.ndim == 2
    if several is is_softmax(manifest):
        forms = "one label a picture", "several labels a picture"
        raise DataError(
            f"{source.folder}: expected {forms[not several]}, as {manifest.name} has, got "
            f"{forms[several]}"
        )
    return pictures


def files(options: argparse.Namespace) -> Source:
    """Returns a folder, or a list, of photographs as `add_files` and `add_formats` name it."""
    return Source(
        options.folder,
        method=photo_methods.METHODS[options.formats or "jpeg"][3],
        subfolders=options.subfolders == "use",
        columns=options.columns or columns.USUAL,
    )


def model_name(options: argparse.Namespace) -> str:
    """Returns the name of a model that was given none: cats-dogs for pictures in cats_dogs/."""
    folder: Path | None = options.data
    if folder is None or mnist_files.are_published(folder):
        return "mnist"
    whole = folder.resolve()
    # Of a file that lists pictures, without its ending.
    name = (whole.stem if whole.is_file() else whole.name).replace("_", "-").replace(" ", "-")
    return name if is_name(name) else registry.find_task(options.task).model


def _columns(text: str) -> columns.Columns:
    try:
        return columns.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _bundle_source(options: argparse.Namespace, manifest: Manifest, task: Task) -> Source:
    spec = manifest.input
    shape = (spec.height, spec.width, spec.channels)
    return replace(_source(options, task, shape), method=spec.resize)


def _source(
    options: argparse.Namespace,
    task: Task,
    shape: tuple[int | None, int | None, int],
    ignore_accuracy_floor: bool = False,
) -> Source:
    check(options, task)
    if task.needs_folder and options.data is None:
        raise UsageError(f"--data: expected a folder for {task.name}, got none")
    height, width, channels = shape
    return Source(
        options.data,
        height,
        width,
        split=options.validation_split,
        max_unreadable=0.01 if options.max_unreadable is None else options.max_unreadable,
        cache=getattr(options, "cache", None),
        cache_bytes=_cache_bytes(options),
        channels=channels,
        labels=options.labels,
        method=photo_methods.METHODS[getattr(options, "formats", None) or "jpeg"].get(channels),
        subfolders=getattr(options, "subfolders", None) == "use",
        columns=getattr(options, "columns", None) or columns.USUAL,
        part=getattr(options, "part", None),
        ignore_accuracy_floor=ignore_accuracy_floor,
    )


def _cache_bytes(options: argparse.Namespace) -> int | None:
    gigabytes: float | None = getattr(options, "cache_gb", None)
    if gigabytes is None:
        return None
    if not 0 <= gigabytes < float("inf"):
        raise UsageError(f"--cache-gb: expected 0 or more, got {gigabytes:g}")
    return int(gigabytes * 1e9)
