"""Folders of photographs as the data of a training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from convserve_imaging.folder_names import class_name
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, InputSpec, Manifest
from convserve_trainer.datasets import photo_folders, photo_methods, skipped
from convserve_trainer.datasets.class_names import check_limit
from convserve_trainer.datasets.listed_photos import ListedPhotos
from convserve_trainer.datasets.photo_cache import PhotoCache
from convserve_trainer.datasets.photo_decoding import Decoder, Progress
from convserve_trainer.datasets.photo_folders import Choice, ClassFolders
from convserve_trainer.datasets.photo_list import Photo, PhotoTable
from convserve_trainer.datasets.pictures import Data, Pictures, Source
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.datasets.unreadable_photos import UnreadablePhotos
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.wording import counted

TRAINED_ON, HELD_OUT = "to train on", "held out"  # what pictures are for, in messages

Say = Callable[[str], None]
"""Takes lines on what is found."""


def match(folder: Path) -> bool:
    """Returns whether a folder has subfolders, which may be classes."""
    return folder.is_dir() and any(path.is_dir() for path in folder.iterdir())


def load(source: Source, limit: int | None, say: Say) -> Data:
    """Returns photographs to train on, and those held out, as uint8 [N, height, width, channels].

    Each file is read and decoded once before this returns. The held-out ones are in the order of
    their digests, so that any first part of them is a fair sample.

    Args:
        source: which photographs.
        limit: train on so many only, of all classes alike; None for all.
        say: takes lines.

    Raises:
        DataError: the folders are not as they should be, or too much in them cannot be read.
        UsageError: `source.split` does not suit the folders, or `limit` is below the classes.
    """
    folder, _ = _folder_and_shape(source)
    found, validation = photo_folders.find(folder, source.split, _choice(source))
    return of_found(source, found, validation, limit, say)


def of_found(
    source: Source,
    found: ClassFolders,
    validation: ClassFolders | None,
    limit: int | None,
    say: Say,
) -> Data:
    """Returns the same of photographs that were found in whatever way.

    Args:
        source: how they are read.
        found: to train on; with what is held out if `validation` is None.
        validation: held out, with the same classes; None to hold out `source.split` of `found`.
        limit: train on so many only, of all classes alike; None for all.
        say: takes lines.

    Raises:
        DataError: too much cannot be read.
        UsageError: `limit` is below the classes.
    """
    _, (height, width, channels) = _folder_and_shape(source)
    check_limit(limit, len(found.labels))
    reader = _Reader(source, [found, validation] if validation else [found], say, whole=True)
    train = reader.read(found.photos)
    if validation:
        held_out = reader.read(validation.photos)
    else:
        train, held_out = photo_folders.split(train, source.split or 0.0)
    if copies := len(np.intersect1d(held_out.contents(), train.contents())):
        are = counted(copies, "held-out picture is", "held-out pictures are")
        say(f"warning: {are} trained on too, as copies")
    train = photo_folders.limited(train, limit)
    reader.open(len(train) + len(held_out))
    train, train_pictures = reader.pictures(train, TRAINED_ON)
    held_out, held_out_pictures = reader.pictures(held_out.by_content(), HELD_OUT)
    reader.close()
    return Data(
        what="photographs",
        labels=found.labels,
        spec=InputSpec(
            height=height,
            width=width,
            channels=channels,
            kind=IMAGE_KIND_PHOTO,
            resize=_method(source),
        ),
        train=train_pictures,
        held_out=held_out_pictures,
        sha256=photo_folders.digest(train, held_out, found.labels),
        notes=reader.unreadable.notes,
    )


def held_out(source: Source, manifest: Manifest, say: Say) -> Pictures:
    """Returns held-out photographs for a bundle; see `load_held_out`."""
    as_trained = replace(source, method=manifest.input.resize)
    return load_held_out(as_trained, manifest.labels, say)


def load_held_out(source: Source, labels: Sequence[str], say: Say) -> Pictures:
    """Returns held-out photographs alone: DIR/validation or DIR/test, the split's, or all.

    Args:
        source: which photographs, and which part; a folder of class folders without a split is
            used whole.
        labels: names of the classes, in the order of their numbers.
        say: takes lines.

    Raises:
        DataError: the folders are not as they should be, have other classes than `labels`, or too
            much in them cannot be read.
    """
    whole, _ = _folder_and_shape(source)
    folder = photo_folders.part(whole, source.split, source.part)
    return _held_out(source, folder, photo_folders.classes(folder, _choice(source)), labels, say)


def held_out_of(source: Source, found: ClassFolders, manifest: Manifest, say: Say) -> Pictures:
    """Returns held-out photographs for a bundle, of those that were found in whatever way.

    Raises:
        DataError: they have other classes than the bundle, or too much cannot be read.
    """
    as_trained = replace(source, method=manifest.input.resize)
    where, _ = _folder_and_shape(source)
    return _held_out(as_trained, where, found, manifest.labels, say)


def _held_out(
    source: Source, where: Path, found: ClassFolders, labels: Sequence[str], say: Say
) -> Pictures:
    if found.several:
        found = _numbered(where, found, tuple(map(class_name, labels)))
    if found.labels != tuple(map(class_name, labels)):
        raise DataError(
            f"{shown(where)}: expected the classes of the bundle, "
            f"{', '.join(labels)}, got "
            f"{', '.join(found.labels)}"
        )
    reader = _Reader(source, [found], say, whole=False)
    photos = reader.read(found.photos)
    if source.split is not None:
        _, photos = photo_folders.split(photos, source.split)
    reader.open(len(photos))
    pictures = reader.pictures(photos, HELD_OUT)[1]
    reader.close()
    return pictures


def _numbered(where: Path, found: ClassFolders, labels: tuple[str, ...]) -> ClassFolders:
    """Returns pictures of several labels with the numbers that a bundle's labels have.

    Raises:
        DataError: one has a label that the bundle has not.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    if others := [label for label in found.labels if label not in numbers]:
        raise DataError(
            f"{shown(where)}: expected labels of the bundle, {', '.join(labels)}, got "
            f"{', '.join(others)}"
        )
    photos = found.photos
    assert isinstance(photos, ListedPhotos)
    renumbered = photos.renumbered([numbers[label] for label in found.labels], len(labels))
    return replace(found, labels=labels, photos=renumbered)


def _folder_and_shape(source: Source) -> tuple[Path, tuple[int, int, int]]:
    """Returns the folder, and height, width and channels that each photograph is given.

    Raises:
        UsageError: the source has no folder, or no size.
    """
    if source.folder is None:
        raise UsageError("--data: expected a folder for photos, got none")
    if source.height is None or source.width is None:
        raise UsageError("--size: expected a size for photos, got none")
    return source.folder, (source.height, source.width, source.channels)


def _method(source: Source) -> str:
    return source.method or photo_methods.METHODS["jpeg"][source.channels]


def _choice(source: Source) -> Choice:
    return Choice(photo_methods.suffixes(_method(source)), source.subfolders)


class _Reader:
    """Reads parts of what was found; unreadable photographs of all parts are counted together."""

    def __init__(
        self, source: Source, found: Sequence[ClassFolders], say: Say, whole: bool
    ) -> None:
        self._source, self._say, self._whole = source, say, whole
        self._folder, self._shape = _folder_and_shape(source)
        self._labels = found[0].labels
        self._several = found[0].several
        self._method = _method(source)
        self._total = sum(len(part.photos) for part in found)
        all_are_read = photo_methods.suffixes(self._method) == photo_methods.ALL_SUFFIXES
        hint = "" if all_are_read else "; PNG, WebP and GIF are read with --formats all"
        self.unreadable = UnreadablePhotos(self._folder, self._total, source.max_unreadable, hint)
        self._cache = PhotoCache(self._folder, self._shape, self._method, self._total, source.cache)
        entries = [entry for part in found for entry in part.skipped]
        unlabelled = [content for part in found for content in part.unlabelled]
        for line in (
            *skipped.lines(entries, photo_methods.suffixes(self._method)),
            *skipped.unlabelled(unlabelled),
        ):
            say(line)

    def read(self, photos: Sequence[Photo]) -> PhotoTable:
        """Returns those that can be read, with their digests."""
        found = self._cache.survey.find(photos, Progress(self._say, "read", len(photos)))
        self.unreadable.add({photos[number].path: error for number, error in found.lost.items()})
        return found.table

    def open(self, count: int) -> None:
        """Decides where the pixels of so many photographs are kept."""
        self._keep_survey()
        mode = self._cache.mode(count, self._source.cache_bytes)
        if mode == "disk" and self._whole:
            self._cache.begin_anew_if_worn(self._total, self._say)
        self._decoder = Decoder(
            self._cache, mode, self._shape, self._method, self.unreadable, self._say
        )

    def close(self) -> None:
        """Keeps what is known of the files for the next training."""
        self._keep_survey()

    def pictures(self, photos: PhotoTable, what: str) -> tuple[PhotoTable, Pictures]:
        """Returns those that can be decoded, and their pixels."""
        self._check_classes(photos, what)
        decoded = self._decoder.decoded(photos)
        self.unreadable.add({photos[n].path: error for n, error in decoded.unreadable.items()})
        for note in self.unreadable.notes():
            self._say(note)
        self._check_classes(decoded.photos, what)
        count = counted(len(decoded.photos), "photograph")
        self._say(f"{count} {what}, decoded {decoded.where}")
        return decoded.photos, decoded.pictures

    def _keep_survey(self) -> None:
        if reason := self._cache.survey.save(self._whole):
            self._say(
                f"warning: what is known of the files cannot be kept in {self._cache.folder} "
                f"({reason}): the next training reads all of them again"
            )

    def _check_classes(self, photos: PhotoTable, what: str) -> None:
        if self._several:
            if what == HELD_OUT and len(photos):
                return  # a rare label may have no picture there
            there = np.flatnonzero(photos.labels.any(axis=0))
        else:
            there = np.unique(photos.labels)
        missing = set(range(len(self._labels))) - set(there.tolist())
        if missing:
            names = ", ".join(self._labels[number] for number in sorted(missing))
            raise DataError(
                f"{shown(self._folder)}: no readable picture {what} of the class {names}"
            )
