"""Every picture of a set, decoded and examined by as many threads as there are CPUs."""

import errno
import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convserve_imaging import PHOTO_BILINEAR, photos, pictures
from convserve_imaging.errors import NotAPictureError, PictureError, TooManyPixelsError
from convserve_imaging.jpeg import SOI, read_header
from convserve_imaging.jpeg_pixels import MAX_PIXELS
from convserve_imaging.picture_files import open_file
from convserve_trainer.check_data.look_alikes import Thumbnail, thumbnail
from convserve_trainer.check_data.tree import PictureFile, Tree
from convserve_trainer.datasets import photo_methods, photo_reader
from convserve_trainer.datasets.content import MAX_BYTES, Content

SIZE = 150
"""Pixels a side that every picture is decoded to, that of the photographs' training."""

_GREY = 1
"""Levels by which the channels of a grey WebP differ: it stores all pictures in colour."""

UNREADABLE = "unreadable"
BROKEN_LINK = "broken-link"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file gives no picture.

    Attributes:
        reason: kind of fault: one of `convserve_imaging.errors`, "broken-link" or "unreadable".
        message: one line.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture that decodes.

    Attributes:
        sha256: of the file's content, 32 bytes.
        width: columns, upright.
        height: rows, upright.
        orientation: of Exif, 1 to 8; 1 is upright as stored.
        components: 1 (grey), 3 (colour) or 4 (CMYK).
        spread: standard deviation of the brightness over the decoded pixels, 0 to 128.
        thumbnail: uint8 [32, 32], see `look_alikes`.
    """

    sha256: bytes
    width: int
    height: int
    orientation: int
    components: int
    spread: float
    thumbnail: Thumbnail


def examine(content: Content, method: str = PHOTO_BILINEAR) -> Picture:
    """Reads a picture and decodes it; mostly without the GIL.

    Args:
        content: path of its file, or its row in a table.
        method: that makes its pixels, of three channels.

    Raises:
        OSError: it cannot be read.
        PictureError: it holds no picture that training and serving take.
    """
    if isinstance(content, Path):
        _check_file(content)
    data = content.read_bytes()
    header = _header(data, method)
    pixels = photo_methods.decoder(method)(data, SIZE, SIZE)
    grey = brightness(pixels)
    width, height = header.size[::-1] if header.orientation >= 5 else header.size
    return Picture(
        sha256=hashlib.sha256(data).digest(),
        width=width,
        height=height,
        orientation=header.orientation,
        components=header.components or (3 if np.ptp(pixels, axis=2).max() > _GREY else 1),
        spread=float(grey.std()),
        thumbnail=thumbnail(grey),
    )


class _Header(NamedTuple):
    """What a header states; components None where it depends on the pixels."""

    size: tuple[int, int]
    orientation: int
    components: int | None


def _header(data: bytes, method: str) -> _Header:
    if data.startswith(SOI) or photo_methods.suffixes(method) == photo_methods.JPEG_SUFFIXES:
        jpeg = read_header(data)
        return _Header((jpeg.width, jpeg.height), jpeg.orientation, jpeg.components)
    opened = open_file(data, pictures.FORMATS, MAX_PIXELS)
    return _Header(opened.size, opened.orientation, None)


def _check_file(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise NotAPictureError("it is not a regular file")
    if status.st_size > MAX_BYTES:
        size = f"{status.st_size >> 20:,} MiB"
        raise TooManyPixelsError(f"the file has {size}; at most {MAX_BYTES >> 20} are read")


def fault(content: Content, error: OSError | PictureError) -> Fault:
    """Returns what an error of `examine` says of the picture."""
    if isinstance(error, PictureError):
        return Fault(error.reason, str(error))
    is_link = isinstance(content, Path) and content.is_symlink()
    if error.errno in (errno.ENOENT, errno.ELOOP) and is_link:
        return Fault(BROKEN_LINK, "it is a link that leads nowhere")
    return Fault(UNREADABLE, f"it cannot be read: {error.strerror}")


#: Of red, green and blue in the brightness. Source: ITU-R BT.601-7, 2.5.1.
_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


def brightness(pixels: photos.Pixels) -> npt.NDArray[np.float32]:
    """Returns float32 [H, W], 0 to 255, for uint8 [H, W, 3], RGB."""
    return pixels.astype(np.float32) @ _WEIGHTS


@dataclass(frozen=True)
class Survey:
    """A picture set and what its files are.

    Attributes:
        tree: the set.
        pictures: that decode, in the order of the tree's files.
        faults: of the files that do not, in the same order.
    """

    tree: Tree
    pictures: dict[PictureFile, Picture]
    faults: dict[PictureFile, Fault]


def survey(
    tree: Tree, count: Callable[[int], None] = lambda _: None, method: str = PHOTO_BILINEAR
) -> Survey:
    """Reads and decodes every picture of a set.

    Args:
        tree: the set.
        count: takes how many pictures are done.
        method: that makes their pixels, of three channels.
    """
    found: dict[PictureFile, Picture] = {}
    faults: dict[PictureFile, Fault] = {}
    contents = [tree.content(file) for file in tree.files]
    for number, result in photo_reader.each(lambda n: examine(contents[n], method), len(contents)):
        if isinstance(result, Picture):
            found[tree.files[number]] = result
        else:
            faults[tree.files[number]] = fault(contents[number], result)
        count(number + 1)
    return Survey(tree, found, faults)
