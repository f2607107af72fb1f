"""Photographs decoded while they are needed: threads work ahead of the training, never far.

This is the way from files to pixels in training, whether or not the pixels are kept afterwards.
"""

import errno
import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from convserve_host import cpus
from convserve_imaging import PHOTO_BILINEAR
from convserve_imaging.errors import PictureError
from convserve_imaging.pictures import upright_size
from convserve_trainer.datasets import photo_methods
from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.photo_list import Photo, PhotoTable
from convserve_trainer.datasets.pictures import Batch, Labels, Pixels, Sizes
from convserve_trainer.datasets.unreadable_photos import UnreadablePhotos
from convserve_trainer.errors import DataError

AHEAD = 3  # batches that are decoded or wait to be: enough for a pause of the disk
WINDOW = 16  # pictures a thread, that are begun or done and not yet asked for
Result = TypeVar("Result")


def read(
    content: Content, height: int, width: int, channels: int = 3, method: str = PHOTO_BILINEAR
) -> Pixels:
    """Returns the pixels of a picture: uint8 [height, width, channels], 0 to 255, not scaled.

    Args:
        content: path of its file, or its row in a table.
        height: rows that it is given.
        width: columns.
        channels: 3 (RGB) or 1 (grey).
        method: that makes them.

    Raises:
        OSError: it cannot be read.
        PictureError: it is not a picture that the method reads, or a damaged one.
    """
    return photo_methods.decoder(method)(content.read_bytes(), height, width, channels=channels)


def read_photo(
    photo: Photo, height: int, width: int, channels: int = 3, method: str = PHOTO_BILINEAR
) -> Pixels:
    """Returns the pixels of a photograph; see `read`."""
    return photo_methods.decoder(method)(photo.read(), height, width, channels=channels)


def read_known(photo: Photo, height: int, width: int, channels: int, method: str) -> Pixels:
    """Returns the pixels of a photograph whose digest is known; see `read`.

    Raises:
        OSError: it cannot be read, or has another content by now.
        PictureError: see `read`.
    """
    data = photo.read()
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        raise OSError(errno.ESTALE, "it was changed while the training began")
    return photo_methods.decoder(method)(data, height, width, channels=channels)


def identify(photo: Photo) -> tuple[bytes, tuple[int, int]]:
    """Returns the digest of a photograph, and its picture's height and width, upright.

    Both sides are 0 where the header cannot be read: decoding it says why.

    Raises:
        OSError: it cannot be read.
        PictureError: a row of a table has none.
    """
    data = photo.read()
    digest = hashlib.sha256(data).digest()
    try:
        return digest, upright_size(data)
    except PictureError:
        return digest, (0, 0)


def each(
    work: Callable[[int], Result], count: int
) -> Iterator[tuple[int, Result | OSError | PictureError]]:
    """Yields each number below `count` with what `work` makes of it, or why it cannot be read.

    Threads work ahead of what is asked for, by WINDOW numbers each.
    """

    def attempt(number: int) -> Result | OSError | PictureError:
        try:
            return work(number)
        except (OSError, PictureError) as error:
            return error

    with threads() as pool:
        waiting = (pool.submit(attempt, number) for number in range(count))
        begun = deque(islice(waiting, WINDOW * cpus.threads()))
        for number in range(count):
            result = begun.popleft().result()
            begun.extend(islice(waiting, 1))
            yield number, result


class PhotoPictures:
    """Photographs that are read whenever they are asked for.

    One that cannot be read any more is lost: the next in the order replaces it.

    Args:
        photos: numbered in this order.
        height: rows that each is given.
        width: columns that each is given.
        unreadable: counts what is lost, and says when it is too much.
        channels: that each is given, 3 (RGB) or 1 (grey).
        method: that makes their pixels.
    """

    in_memory = False

    def __init__(
        self,
        photos: PhotoTable,
        height: int,
        width: int,
        unreadable: UnreadablePhotos,
        channels: int = 3,
        method: str = PHOTO_BILINEAR,
    ) -> None:
        self._photos = photos
        self._how = height, width, channels, method
        self._unreadable = unreadable
        self._lost: set[int] = set()

    @property
    def labels(self) -> Labels:
        """See `Pictures`."""
        return self._photos.labels

    @property
    def sizes(self) -> Sizes:
        """See `Pictures`."""
        return self._photos.sizes.astype(np.int64)

    def __len__(self) -> int:
        return len(self._photos)

    def batches(
        self, order: Iterable[int], size: int, steps: int | None = None
    ) -> Generator[Batch, None, None]:
        """See `Pictures`.

        Raises:
            DataError: more photographs are lost than is allowed.
        """
        numbers = (number for number in order if number not in self._lost)
        with threads() as pool:

            def start(count: int) -> list[tuple[int, Future[Pixels]]]:
                return [
                    (number, pool.submit(read_photo, self._photos[number], *self._how))
                    for number in islice(numbers, count)
                ]

            coming = islice(iter(lambda: start(size), []), steps)
            ahead = deque(islice(coming, AHEAD))
            while ahead:
                batch = self._finished(ahead.popleft(), start)
                ahead.extend(islice(coming, 1))
                if batch:
                    yield np.stack([pixels for _, pixels in batch]), self._labels(batch)

    def _finished(
        self,
        begun: list[tuple[int, Future[Pixels]]],
        start: Callable[[int], list[tuple[int, Future[Pixels]]]],
    ) -> list[tuple[int, Pixels]]:
        """Returns numbers and pixels, in order; what is lost is replaced as long as there is."""
        finished = []
        waiting = deque(begun)
        while waiting:
            number, future = waiting.popleft()
            try:
                finished.append((number, future.result()))
            except (OSError, PictureError) as error:
                self._lost.add(number)
                self._unreadable.add({self._photos[number].path: error})
                if len(self._lost) == len(self._photos):
                    raise DataError("every picture went away during the training") from error
                waiting.extend(start(1))
        return finished

    def _labels(self, batch: list[tuple[int, Pixels]]) -> Labels:
        return self._photos.labels[[number for number, _ in batch]]


def pixels_of(paths: Sequence[Path], height: int, width: int) -> Pixels:
    """Returns what a training sees of these files: uint8 [N, height, width, 3], in their order.

    Raises:
        DataError: one cannot be read.
    """
    photos = PhotoTable.unread([Photo(path, str(path), 0) for path in paths])
    pictures = PhotoPictures(
        photos, height, width, UnreadablePhotos(Path(), len(photos), allowed=0.0)
    )
    [(pixels, _)] = pictures.batches(range(len(photos)), len(photos))
    return pixels


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """Provides one thread a CPU that may be used; at the end, what is not begun is dropped."""
    pool = ThreadPoolExecutor(cpus.threads(), thread_name_prefix="photo")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
