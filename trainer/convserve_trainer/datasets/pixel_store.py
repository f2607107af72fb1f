"""Decoded photographs on disk, in shards that are written as they are decoded, found by content.

A shard is a file of pixels, followed by the digests of what they were decoded from and the number
of pictures. It appears whole or not at all, under a name of its own, so a training that was killed
leaves the shards that it had finished, and several may write at once.

Pixels are read by `preadv` into the batch, not through a mapped file: mapped pages would count as
this process's memory, a hundred gigabytes of them, and a disk that fails would kill it (SIGBUS).
"""

import os
import struct
import tempfile
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from convserve_host import atomic_file, os_errors
from convserve_trainer.datasets import photo_reader
from convserve_trainer.datasets.photo_list import DIGEST, as_values
from convserve_trainer.datasets.pictures import Batch, Labels, Pixels, Sizes
from convserve_trainer.errors import DataError

AHEAD = 3  # batches that are read before they are asked for: enough for a pause of the disk
SHARDS = 128  # of a whole data set, as long as they are not too small for that
LEAST_BYTES = 64 * 2**20  # of a shard
MOST_SHARDS = 512  # each is an open file, of the 1,024 that a process usually may have
SUFFIX = ".pixels"
TRAILER = struct.Struct("<8sQ")  # what it is, and the pictures
MAGIC = b"CVSPIX1\0"


class PixelStore:
    """Pixels of one size, of one data set.

    Args:
        folder: that has the shards, and exists.
        shape: rows, columns and channels of a picture.
        lock: of the folder, which is held as long as the store is there.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, int, int], lock: object | None = None
    ) -> None:
        self._folder, self.shape, self._lock = folder, shape, lock
        self._each = int(np.prod(shape))
        self._files: dict[Path, int] = {}  # descriptors; one that is removed meanwhile stays open
        weakref.finalize(self, _close, self._files)
        self._digests = np.zeros((0, DIGEST), np.uint8)
        self._positions = np.zeros(0, np.int64)  # descriptor * 2**32 + picture within the shard
        self.look()

    def __len__(self) -> int:
        return len(self._digests)

    def look(self) -> None:
        """Finds the shards that have appeared since the last look; a damaged one is removed."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path in self._files:
                continue
            descriptor = os.open(path, os.O_RDONLY)
            digests = self._digests_of(descriptor)
            if digests is None:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                continue
            self._files[path] = descriptor
            positions = (descriptor << 32) + np.arange(len(digests))
            self._digests = np.concatenate([self._digests, digests])
            self._positions = np.concatenate([self._positions, positions])
        order = np.argsort(as_values(self._digests), kind="stable")
        self._digests, self._positions = self._digests[order], self._positions[order]

    def find(self, contents: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """Returns where the pixels of contents are, [N], for `read`; -1 where there are none."""
        if not len(self):
            return np.full(len(contents), -1)
        values = as_values(self._digests)
        positions = np.minimum(np.searchsorted(values, contents), len(values) - 1)
        return np.where(values[positions] == contents, self._positions[positions], -1)

    def read(self, position: int, into: Pixels) -> None:
        """Reads the pixels of a picture.

        Raises:
            OSError: the disk refuses.
            DataError: the file is shorter than it was.
        """
        descriptor, number = divmod(position, 2**32)
        if os.preadv(descriptor, [into.data], number * self._each) != self._each:
            raise DataError(f"a file of decoded pixels in {self._folder} was cut while it was used")

    def is_worn(self, count: int) -> bool:
        """Returns whether most pictures are gone from a data set of so many, or shards too many."""
        return len(self) > 2 * count or len(self._files) > MOST_SHARDS

    def clear(self) -> None:
        """Removes all shards; those that other processes read stay until they end."""
        for path, descriptor in self._files.items():
            path.unlink(missing_ok=True)
            os.close(descriptor)
        self._files.clear()
        self._digests, self._positions = self._digests[:0], self._positions[:0]

    @contextmanager
    def writer(self, total: int) -> Iterator["Writer"]:
        """Provides what adds pictures; at an error those of the last shard are lost.

        Args:
            total: pictures that the store will have in the end.
        """
        least = max(LEAST_BYTES, total * self._each // SHARDS)
        writer = Writer(self._folder, max(1, least // self._each))
        try:
            yield writer
            writer.finish()
        finally:
            writer.abandon()
            self.look()

    def _digests_of(self, descriptor: int) -> npt.NDArray[np.uint8] | None:
        """Returns the digests of a shard, [N, DIGEST]; None if it is not as it was written."""
        size = os.fstat(descriptor).st_size
        trailer = os.pread(descriptor, TRAILER.size, max(0, size - TRAILER.size))
        if len(trailer) < TRAILER.size:
            return None
        magic, count = TRAILER.unpack(trailer)
        if magic != MAGIC or size != count * (self._each + DIGEST) + TRAILER.size:
            return None
        digests = os.pread(descriptor, count * DIGEST, count * self._each)
        return np.frombuffer(digests, np.uint8).reshape(count, DIGEST)


class Writer:
    """Adds pictures to a store, shard by shard.

    Args:
        folder: of the store.
        most: pictures of a shard.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._stream: BinaryIO | None = None
        self._temporary = Path()
        self._digests: list[bytes] = []

    def add(self, digest: bytes, pixels: Pixels) -> None:
        """Adds a picture.

        Raises:
            OSError: the disk is full, or refuses.
        """
        if self._stream is None:
            descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self._folder)
            self._stream, self._temporary = os.fdopen(descriptor, "wb"), Path(name)
        self._stream.write(np.ascontiguousarray(pixels).data)
        self._digests.append(digest)
        if len(self._digests) == self._most:
            self.finish()

    def finish(self) -> None:
        """Makes a shard of what has been added."""
        if self._stream is None:
            return
        count = len(self._digests)
        self._stream.write(b"".join(self._digests) + TRAILER.pack(MAGIC, count))
        self._stream.close()
        atomic_file.flush(self._temporary)
        os.rename(self._temporary, self._temporary.with_name(self._temporary.name[1:-4] + SUFFIX))
        self._stream, self._digests = None, []

    def abandon(self) -> None:
        """Removes what has not become a shard."""
        if self._stream is not None:
            self._temporary.unlink(missing_ok=True)
            with suppress(OSError):  # the disk is full: what is written here is thrown away
                self._stream.close()
            self._stream = None


class StoredPictures:
    """Pictures whose pixels are in a store.

    Args:
        store: of the pixels.
        positions: of each picture there, as `PixelStore.find` returns them.
        labels: [N, ...]; what is asked of the net for each.
        sizes: of the files.
    """

    in_memory = False  # reading goes on beside the training

    def __init__(
        self,
        store: PixelStore,
        positions: npt.NDArray[np.int64],
        labels: Labels,
        sizes: Sizes,
    ) -> None:
        self._store, self._positions = store, positions
        self.labels, self.sizes = labels, sizes

    def __len__(self) -> int:
        return len(self._positions)

    def batches(
        self, order: Iterable[int], size: int, steps: int | None = None
    ) -> Generator[Batch, None, None]:
        """See `Pictures`.

        Raises:
            DataError: the disk refuses.
        """
        numbers = iter(order)
        parts = islice(iter(lambda: list(islice(numbers, size)), []), steps)
        with photo_reader.threads() as pool:
            ahead = deque(pool.submit(self._read, part) for part in islice(parts, AHEAD))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(pool.submit(self._read, part) for part in islice(parts, 1))
                yield batch

    def _read(self, numbers: list[int]) -> Batch:
        pixels = np.empty((len(numbers), *self._store.shape), np.uint8)
        try:
            for row, position in zip(pixels, self._positions[numbers].tolist(), strict=True):
                self._store.read(position, row)
        except OSError as error:
            raise DataError(f"decoded pixels cannot be read: {os_errors.reason(error)}") from error
        return pixels, self.labels[numbers]


def _close(files: dict[Path, int]) -> None:
    for descriptor in files.values():
        os.close(descriptor)
