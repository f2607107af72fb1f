"""Folders of photographs as the data of a training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from convserve_imaging.folder_names import class_name
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO, InputSpec, Manifest
from convserve_trainer.datasets import (
    photo_cache,
    photo_folders,
    photo_methods,
    photo_reader,
    skipped,
)
from convserve_trainer.datasets.class_names import check_limit
from convserve_trainer.datasets.photo_folders import Choice, ClassFolders, Photo
from convserve_trainer.datasets.pictures import ArrayPictures, Data, Pictures, Source
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
    reader = _Reader(source, [found, validation] if validation else [found], say)
    train = reader.read(found.photos)
    if validation:
        held_out = reader.read(validation.photos)
    else:
        train, held_out = photo_folders.split(train, source.split or 0.0)
    copies = len({photo.sha256 for photo in held_out} & {photo.sha256 for photo in train})
    if copies:
        are = counted(copies, "held-out picture is", "held-out pictures are")
        say(f"warning: {are} trained on too, as copies")
    train, train_pictures = reader.pictures(photo_folders.limited(train, limit), TRAINED_ON)
    held_out = sorted(held_out, key=lambda photo: (photo.sha256, photo.name))
    held_out, held_out_pictures = reader.pictures(held_out, HELD_OUT)
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
    """Returns held-out photographs alone: DIR/validation, the split's, or a whole folder.

    Args:
        source: which photographs; a folder of class folders without a split is used whole.
        labels: names of the classes, in the order of their numbers.
        say: takes lines.

    Raises:
        DataError: the folders are not as they should be, have other classes than `labels`, or too
            much in them cannot be read.
    """
    whole, _ = _folder_and_shape(source)
    folder = whole / photo_folders.VALIDATION
    if source.split is not None or not folder.is_dir():
        folder = whole
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
    reader = _Reader(source, [found], say)
    photos = reader.read(found.photos)
    if source.split is not None:
        _, photos = photo_folders.split(photos, source.split)
    return reader.pictures(photos, HELD_OUT)[1]


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
    photos = [
        replace(
            photo, labels=tuple(sorted(numbers[found.labels[each]] for each in photo.labels or ()))
        )
        for photo in found.photos
    ]
    return replace(found, labels=labels, photos=tuple(photos))


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

    def __init__(self, source: Source, found: Sequence[ClassFolders], say: Say) -> None:
        self._folder, self._shape = _folder_and_shape(source)
        self._labels = found[0].labels
        self._several = found[0].several
        self._say = say
        total = sum(len(part.photos) for part in found)
        self.unreadable = UnreadablePhotos(self._folder, total, source.max_unreadable)
        self._cache = source.cache or photo_cache.suitable(total, *self._shape)
        self._method = _method(source)
        entries = [entry for part in found for entry in part.skipped]
        for line in skipped.lines(entries, photo_methods.suffixes(self._method)):
            say(line)

    def read(self, photos: Sequence[Photo]) -> list[Photo]:
        """Returns those that can be read, with their digests."""
        found: list[Photo] = []
        lost: dict[Path, Exception] = {}
        read = photo_reader.each(lambda n: photo_reader.identify(photos[n].path), len(photos))
        for number, identity in read:
            if isinstance(identity, Exception):
                lost[photos[number].path] = identity
            else:
                digest, size = identity
                found.append(replace(photos[number], sha256=digest, size=size))
        self.unreadable.add(lost)
        return found

    def pictures(self, photos: Sequence[Photo], what: str) -> tuple[list[Photo], Pictures]:
        """Returns those that can be decoded, and their pixels."""
        self._check_classes(photos, what)
        height, width, channels = self._shape
        decoded = photo_cache.decoded(photos, self._shape, self._cache, self._method)
        self.unreadable.add({photos[n].path: error for n, error in decoded.unreadable.items()})
        for note in self.unreadable.notes():
            self._say(note)
        kept = [photo for n, photo in enumerate(photos) if n not in decoded.unreadable]
        self._check_classes(kept, what)
        self._say(f"{counted(len(kept), 'photograph')} {what}, decoded {decoded.where}")
        if decoded.pixels is None:
            return kept, photo_reader.PhotoPictures(
                kept, height, width, self.unreadable, channels, self._method, self._count
            )
        labels = photo_reader.labels_of(kept, self._count)
        sizes = np.array([photo.size for photo in kept], np.int64)
        return kept, ArrayPictures(decoded.pixels, labels, sizes)

    @property
    def _count(self) -> int | None:
        """How many labels there are, where pictures have several."""
        return len(self._labels) if self._several else None

    def _check_classes(self, photos: Sequence[Photo], what: str) -> None:
        there = {number for photo in photos for number in photo.labels or (photo.label,)}
        missing = set(range(len(self._labels))) - there
        if self._several and what == HELD_OUT and photos:
            return  # a rare label may have no picture there
        if missing:
            names = ", ".join(self._labels[number] for number in sorted(missing))
            raise DataError(
                f"{shown(self._folder)}: no readable picture {what} of the class {names}"
            )
