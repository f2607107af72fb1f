"""Photographs decoded once before a training: for their pixels, and to find the unreadable ones."""

import errno
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from convserve_trainer.datasets import photo_reader
from convserve_trainer.datasets.photo_cache import PhotoCache
from convserve_trainer.datasets.photo_list import PhotoTable
from convserve_trainer.datasets.pictures import ArrayPictures, Pictures, Pixels
from convserve_trainer.datasets.pixel_store import StoredPictures
from convserve_trainer.datasets.unreadable_photos import UnreadablePhotos

SAY_S = 30.0  # between two lines on how far it is
Say = Callable[[str], None]


class Decoded(NamedTuple):
    """What came of decoding every photograph once.

    Attributes:
        photos: the readable ones.
        pictures: their pixels.
        unreadable: numbers of the others, with the reason.
        where: the pixels are kept, for a message.
    """

    photos: PhotoTable
    pictures: Pictures
    unreadable: Mapping[int, Exception]
    where: str


class Progress:
    """Says how far some work is, if it takes long.

    Args:
        say: takes lines.
        done: what is done to photographs, "decoded".
        total: photographs.
    """

    def __init__(self, say: Say, done: str, total: int) -> None:
        self._say, self._done, self._total = say, done, total
        self._next_s = time.monotonic() + SAY_S

    def __call__(self, count: int) -> None:
        """Takes how many are done."""
        now = time.monotonic()
        if now >= self._next_s and count < self._total:
            self._next_s = now + SAY_S
            self._say(f"{count:,} of {self._total:,} photographs {self._done}")


class Decoder:
    """Decodes photographs of one data set.

    Args:
        cache: of the data set.
        mode: where pixels are kept, one of `photo_cache.MODES`.
        shape: rows, columns and channels, 3 (RGB) or 1 (grey), that each is given.
        method: that makes their pixels.
        losses: counts what is lost while pixels are decoded for each epoch.
        say: takes lines.
    """

    def __init__(
        self,
        cache: PhotoCache,
        mode: str,
        shape: tuple[int, int, int],
        method: str,
        losses: UnreadablePhotos,
        say: Say,
    ) -> None:
        self._cache, self._mode, self._shape, self._method = cache, mode, shape, method
        self._losses, self._say = losses, say

    def decoded(self, photos: PhotoTable) -> Decoded:
        """Returns the photographs' pixels, kept as it was asked for.

        Raises:
            DataError: the cache's disk is full, or refuses.
        """
        make = {"none": self._nowhere, "memory": self._in_memory, "disk": self._on_disk}
        return make[self._mode](photos)

    def _in_memory(self, photos: PhotoTable) -> Decoded:
        pixels, readable = np.empty((len(photos), *self._shape), np.uint8), 0

        def keep(number: int, decoded: Pixels) -> None:
            nonlocal readable
            pixels[readable] = decoded
            readable += 1

        unreadable = self._decode(photos, keep)
        kept, where = pixels[:readable], f"in memory ({pixels.nbytes / 2**20:,.0f} MiB)"
        photos = _without(photos, unreadable)
        pictures = ArrayPictures(kept, photos.labels, photos.sizes.astype(np.int64))
        return Decoded(photos, pictures, unreadable, where)

    def _nowhere(self, photos: PhotoTable) -> Decoded:
        new = np.flatnonzero(~np.isin(photos.contents(), self._cache.survey.decoded()))
        found = self._decode(photos.take(new), lambda number, decoded: None)
        unreadable = {int(new[number]): error for number, error in found.items()}
        photos = _without(photos, unreadable)
        self._cache.survey.note_decoded(photos.contents())
        height, width, channels = self._shape
        pictures = photo_reader.PhotoPictures(
            photos, height, width, self._losses, channels, self._method
        )
        return Decoded(photos, pictures, unreadable, "for each epoch anew")

    def _on_disk(self, photos: PhotoTable) -> Decoded:
        store, contents = self._cache.store, photos.contents()
        positions, errors = store.find(contents), {}
        if (positions < 0).any():
            with self._cache.writing(self._say):
                errors = self._fill(photos)
            positions = store.find(contents)
        gone = OSError(errno.ESTALE, "its decoded pixels were removed meanwhile")
        unreadable = {
            number: errors.get(contents[number].tobytes(), gone)
            for number in np.flatnonzero(positions < 0).tolist()
        }
        photos, where = _without(photos, unreadable), f"in {self._cache.folder}"
        sizes = photos.sizes.astype(np.int64)
        pictures = StoredPictures(store, positions[positions >= 0], photos.labels, sizes)
        return Decoded(photos, pictures, unreadable, where)

    def _fill(self, photos: PhotoTable) -> dict[bytes, Exception]:
        """Adds the pixels that the store lacks; returns why some contents have none."""
        store, contents = self._cache.store, photos.contents()
        _, first = np.unique(contents, return_index=True)  # of copies one
        new = np.sort(first[store.find(contents[first]) < 0])
        lacking = photos.take(new)
        with store.writer(len(store) + len(new)) as writer:
            found = self._decode(
                lacking, lambda number, decoded: writer.add(lacking.digest(number), decoded)
            )
        return {lacking.digest(number): error for number, error in found.items()}

    def _decode(
        self, photos: PhotoTable, keep: Callable[[int, Pixels], None]
    ) -> dict[int, Exception]:
        """Decodes photographs; returns the numbers of the unreadable ones, with the reason."""
        unreadable: dict[int, Exception] = {}
        progress = Progress(self._say, "decoded", len(photos))

        def read(number: int) -> Pixels:
            return photo_reader.read_known(photos[number], *self._shape, self._method)

        for number, found in photo_reader.each(read, len(photos)):
            if isinstance(found, Exception):
                unreadable[number] = found
            else:
                keep(number, found)
            progress(number + 1)
        return unreadable


def _without(photos: PhotoTable, unreadable: Mapping[int, Exception]) -> PhotoTable:
    readable = np.ones(len(photos), bool)
    readable[list(unreadable)] = False
    return photos.take(readable)
