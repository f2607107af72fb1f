"""The formats of data sets that nets are trained on.

A new format is a module in this folder with the functions of `Reader` and its line in FORMATS; one
that lists photographs has the functions of `photo_lists.Lister` instead.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_DIGITS,
    IMAGE_KIND_PHOTO,
    IMAGE_KIND_PIXELS,
    ImageKind,
    Manifest,
)
from convserve_trainer.datasets.pictures import Data, Pictures, Source
from convserve_trainer.errors import UsageError

if TYPE_CHECKING:
    from convserve_trainer.datasets.photo_lists import Lister

Say: TypeAlias = Callable[[str], None]
"""Takes a line on what is done or found."""


class Reader(Protocol):
    """What the module of a format has."""

    def match(self, folder: Path) -> bool:
        """Returns whether a folder holds data of this format."""

    def load(self, source: Source, limit: int | None, say: Say) -> Data:
        """Returns the data to train on, and those held out.

        Args:
            source: which data.
            limit: train on so many pictures only, of all classes alike; None for all.
            say: takes lines.

        Raises:
            DataError: they are missing or damaged.
            UsageError: the source or the limit does not suit them.
        """

    def held_out(self, source: Source, manifest: Manifest, say: Say) -> Pictures:
        """Returns held-out pictures for a bundle.

        Args:
            source: which data.
            manifest: of the bundle, whose classes the data must have.
            say: takes lines.

        Raises:
            DataError: they are missing, damaged or of other classes.
            UsageError: the source does not suit the bundle.
        """


@dataclass(frozen=True)
class Task:
    """What commands and recipes call a sort of data by, in whatever format they are stored.

    Attributes:
        name: as users type it.
        kinds: of pictures, as the manifests of bundles state them.
        options: of commands that are for this task alone.
        needs_folder: whether there are no data without `--data`.
        model: name of a model where the folder's is not a valid one.
    """

    name: str
    kinds: tuple[ImageKind.ValueType, ...]
    options: frozenset[str]
    needs_folder: bool
    model: str


@dataclass(frozen=True)
class Format:
    """A way in which data sets are stored.

    Attributes:
        name: of the format.
        task: that its data are for; formats of one task are distinguished by `Reader.match`.
        module: has the functions of `Reader`, or of `Lister`; imported when they are called,
            because it decodes.
        lists: whether it has those of `Lister`.
    """

    name: str
    task: Task
    module: str
    lists: bool = False

    @property
    def reader(self) -> Reader:
        """Its module, or what reads what that lists."""
        if self.lister is None:
            return cast(Reader, importlib.import_module(f"{__package__}.{self.module}"))
        from convserve_trainer.datasets.photo_lists import ListReader

        return ListReader(self.lister)

    @property
    def lister(self) -> "Lister | None":
        """Its module, if that lists photographs."""
        if not self.lists:
            return None
        return cast("Lister", importlib.import_module(f"{__package__}.{self.module}"))


DIGITS = Task(
    "digits",
    kinds=(IMAGE_KIND_DIGITS, IMAGE_KIND_PIXELS),
    options=frozenset({"labels"}),
    needs_folder=False,
    model="pictures",
)
PHOTOS = Task(
    "photos",
    kinds=(IMAGE_KIND_PHOTO,),
    options=frozenset(
        {"validation_split", "max_unreadable", "cache", "cache_gb", "size", "validation_steps"}
        | {"formats", "subfolders", "columns", "part"}
    ),
    needs_folder=True,
    model="photos",
)
TASKS = (DIGITS, PHOTOS)

#: The last one that matches is used; the first of a task also explains what is missing.
FORMATS = (
    Format("idx", DIGITS, "idx"),
    Format("photo-folders", PHOTOS, "photos"),
    Format("photo-csv", PHOTOS, "photo_csv", lists=True),
    Format("photo-parquet", PHOTOS, "photo_parquet", lists=True),
    Format("photo-metadata", PHOTOS, "photo_metadata", lists=True),
    Format("photo-saved", PHOTOS, "photo_saved", lists=True),
)


def find_task(name: str) -> Task:
    """Returns the task of this name, one of TASKS."""
    return next(task for task in TASKS if task.name == name)


def task_of_kind(kind: ImageKind.ValueType) -> Task:
    """Returns the task whose bundles take pictures of this kind; DIGITS for an unknown one."""
    return next((task for task in TASKS if kind in task.kinds), DIGITS)


def find_format(task: Task, folder: Path | None) -> Format:
    """Returns the format of the data in a folder.

    Args:
        task: that they are for.
        folder: of the data; None for those that a format finds by itself.
    """
    formats = [entry for entry in FORMATS if entry.task == task]
    if folder is None:
        return formats[0]
    matching = [entry for entry in formats if entry.reader.match(folder)]
    return matching[-1] if matching else formats[0]


def find_lister(path: Path) -> "Lister | None":
    """Returns what lists the photographs at a path; None for a folder of other data."""
    matching = [found for entry in FORMATS if (found := entry.lister) and found.match(path)]
    return matching[-1] if matching else None


def check_options(task: Task, given: Iterable[str]) -> None:
    """Checks that options are for a task.

    Args:
        task: that they should be for.
        given: names of the options that have a value.

    Raises:
        UsageError: one is for another task.
    """
    for name in given:
        others = [other.name for other in TASKS if name in other.options]
        if others and task.name not in others:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: expected with {' or '.join(others)} only, got {task.name}")
