"""Lists of photographs in columns: about 100 bytes a file, where objects would take a kilobyte.

What reads a data set yields a sequence of `Photo`, in a fixed order: a list, or one that makes each
as it is asked for, as `PhotoFiles` does. `PhotoTable` adds what is found out by reading them.
"""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from convserve_trainer.datasets.content import Content
from convserve_trainer.datasets.pictures import Labels

DIGEST = 32  # bytes of a SHA-256
STAMP = 16  # bytes


class Stamp(NamedTuple):
    """What tells, without reading it, that a file is still the one that was read.

    Attributes:
        digest: STAMP bytes, over all that changes with the content.
        changed_ns: when it last changed, by its file system's clock, since 1970.
    """

    digest: bytes
    changed_ns: int


@dataclass(frozen=True)
class Photo:
    """A file, or a row of a table, that should be a picture.

    Attributes:
        path: of the file; or the row.
        name: its path below the folder of class folders, "cats/1.jpg"; what it is called wherever
            the data lie.
        label: number of its class; -1 where pictures have several labels.
        sha256: of its content, hexadecimal; empty until it is read.
        size: height and width that its header states, upright; zeros until it is read, and where
            it has no header that can be read.
        labels: numbers of its labels, ascending, perhaps none, where pictures have several; else
            None.
    """

    path: Content
    name: str
    label: int
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    labels: tuple[int, ...] | None = None

    def read(self) -> bytes:
        """Returns its content.

        Raises:
            OSError: it cannot be read.
        """
        return self.path.read_bytes()

    def stamp(self) -> Stamp:
        """Returns what changes when the file does: by path, number (inode), size and times.

        The time of the last change of content or owner (ctime) cannot be set by a program, so a
        file whose date was put back is seen as another one.

        Raises:
            OSError: there is no such file.
        """
        status = self.path.stat()
        facts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        text = b"%s\0%d %d %d %d %d" % (os.fsencode(str(self.path)), *facts, status.st_ctime_ns)
        digest = hashlib.blake2b(text, digest_size=STAMP).digest()
        return Stamp(digest, max(status.st_mtime_ns, status.st_ctime_ns))


class Photos(Sequence[Photo]):
    """A sequence whose parts are lists.

    Attributes:
        labels: numbers of their classes, [N]; where they have several labels [N, K], 1 for each
            label that a photograph has, else 0.
    """

    labels: npt.NDArray[np.integer]

    def _photo(self, number: int) -> Photo:
        raise NotImplementedError

    @overload
    def __getitem__(self, at: int) -> Photo: ...
    @overload
    def __getitem__(self, at: slice) -> list[Photo]: ...
    def __getitem__(self, at: int | slice) -> Photo | list[Photo]:
        """Makes them."""
        if isinstance(at, slice):
            return [self._photo(number) for number in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self._photo(at % len(self))


class Texts:
    """Texts, one after the other; names of files may have bytes that are not characters."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._content, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Adds one."""
        self._content += os.fsencode(text)
        self._ends.append(len(self._content))

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(bytes(self._content[self._ends[number] : self._ends[number + 1]]))


class PhotoFiles(Photos):
    """Files below the folders of their classes, or below one folder.

    Args:
        folders: of each class.
        classes: their names.
        listed: for each file the number of its class, and its path below that class's folder.

    Attributes:
        labels: numbers of the classes, int32 [N].
    """

    def __init__(
        self, folders: Sequence[Path], classes: Sequence[str], listed: Iterable[tuple[int, str]]
    ) -> None:
        self._folders, self._classes = tuple(folders), tuple(classes)
        labels = array("i")

        def paths() -> Iterator[str]:
            for label, below in listed:
                labels.append(label)
                yield below

        self._paths = Texts(paths())
        self.labels = np.array(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def _photo(self, number: int) -> Photo:
        below = self._paths[number]
        label = int(self.labels[number])
        return Photo(self._folders[label] / below, f"{self._classes[label]}/{below}", label)


class PhotoTable(Photos):
    """Photographs with what is known of their contents.

    Args:
        listed: those that a reader of a data set found.
        numbers: in `listed`, int64 [N].
        sha256: of their contents, uint8 [N, DIGEST].
        sizes: height and width by their headers, upright, int32 [N, 2]; see `Photo.size`.

    Attributes:
        labels: numbers of their classes, int64 [N]; of several labels uint8 [N, K], see Photos.
    """

    def __init__(
        self,
        listed: Sequence[Photo],
        numbers: npt.NDArray[np.int64],
        sha256: npt.NDArray[np.uint8],
        sizes: npt.NDArray[np.int32],
    ) -> None:
        self._listed, self._numbers = listed, numbers
        self.sha256, self.sizes = sha256, sizes
        labels = labels_of(listed)[numbers]
        self.labels: Labels
        if labels.ndim == 1:
            self.labels = labels.astype(np.int64, copy=False)
        else:
            self.labels = labels.astype(np.uint8, copy=False)

    @classmethod
    def of(cls, photos: Sequence[Photo]) -> "PhotoTable":
        """Returns the table of photographs that state their digests and sizes."""
        if isinstance(photos, cls):
            return photos
        digests = b"".join(bytes.fromhex(photo.sha256) for photo in photos)
        return cls(
            photos,
            np.arange(len(photos)),
            np.frombuffer(digests, np.uint8).reshape(len(photos), DIGEST),
            np.array([photo.size for photo in photos], np.int32).reshape(len(photos), 2),
        )

    @classmethod
    def unread(cls, photos: Sequence[Photo]) -> "PhotoTable":
        """Returns the table of photographs of which nothing is known yet: all is zero."""
        count = len(photos)
        digests, sizes = np.zeros((count, DIGEST), np.uint8), np.zeros((count, 2), np.int32)
        return cls(photos, np.arange(count), digests, sizes)

    def __len__(self) -> int:
        return len(self._numbers)

    def _photo(self, number: int) -> Photo:
        height, width = self.sizes[number].tolist()
        listed = self._listed[int(self._numbers[number])]
        return replace(listed, sha256=self.sha256[number].tobytes().hex(), size=(height, width))

    def take(self, which: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> "PhotoTable":
        """Returns those of these numbers, in that order, or of a mask."""
        return PhotoTable(self._listed, self._numbers[which], self.sha256[which], self.sizes[which])

    def contents(self) -> npt.NDArray[np.void]:
        """Returns their digests as values that are compared and sorted as bytes are, [N]."""
        return as_values(self.sha256)

    def digest(self, number: int) -> bytes:
        """Returns the digest of one, DIGEST bytes."""
        digest: bytes = self.sha256[number].tobytes()
        return digest

    def by_content(self) -> "PhotoTable":
        """Returns them in the order of their digests, copies in that of their names."""
        order = np.argsort(self.contents(), kind="stable")
        digests = self.contents()[order]
        same = np.flatnonzero(digests[1:] == digests[:-1])
        for start in same[np.diff(same, prepend=-2) > 1]:  # the first pair of each group
            end = int(start) + 1
            while end < len(order) and digests[end] == digests[start]:
                end += 1
            order[start:end] = sorted(order[start:end], key=lambda number: self[number].name)
        return self.take(order)


def labels_of(photos: Sequence[Photo]) -> npt.NDArray[np.integer]:
    """Returns the numbers of their classes, [N]; of several labels [N, K], see Photos."""
    if isinstance(photos, Photos):
        return photos.labels
    return np.fromiter((photo.label for photo in photos), np.int64, len(photos))


def as_values(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Returns bytes [N, B] as N values that are compared and sorted as bytes are."""
    return np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
