"""Decoded photographs, kept for the epochs to come: in memory, on disk, or not at all.

Decoding every picture once, before the training begins, also finds those that cannot be read.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convserve_host import leftovers, memory, os_errors
from convserve_trainer.datasets import photo_reader, unreadable_photos
from convserve_trainer.datasets.photo_folders import Photo
from convserve_trainer.datasets.pictures import Pixels
from convserve_trainer.errors import DataError
from convserve_trainer.host import user_cache

MODES = ("none", "memory", "disk")
SHARE = 0.25  # of the available memory that pixels may fill unasked
PIXELS, UNREADABLE = "pixels.npy", "unreadable.json"


class DecodedPhotos(NamedTuple):
    """What came of decoding every photograph once.

    Attributes:
        pixels: uint8 [N, H, W, C] of the readable ones, in their order; None if not kept.
        unreadable: numbers of the others, with the reason.
        where: the pixels are kept, for a message.
    """

    pixels: Pixels | None
    unreadable: Mapping[int, Exception]
    where: str


def suitable(count: int, height: int, width: int, channels: int = 3) -> str:
    """Returns "memory" if the pixels of so many photographs are but a SHARE of it, else "none"."""
    fits = count * height * width * channels <= SHARE * memory.available_bytes()
    return "memory" if fits else "none"


def decoded(
    photos: Sequence[Photo], each: tuple[int, int, int], mode: str, method: str
) -> DecodedPhotos:
    """Returns the photographs' pixels, kept as asked.

    Args:
        photos: with their digests.
        each: rows, columns and channels, 3 (RGB) or 1 (grey), that each is given.
        mode: one of MODES.
        method: that makes their pixels.

    Raises:
        DataError: the cache's disk is full, or refuses.
    """
    shape = (len(photos), *each)
    if mode == "disk":
        return _on_disk(photos, shape, method)
    kept = np.empty(shape, np.uint8) if mode == "memory" else None
    unreadable = _decode(photos, shape, method, kept)
    if kept is None:
        return DecodedPhotos(None, unreadable, "for each epoch anew")
    readable = kept[: len(photos) - len(unreadable)]
    return DecodedPhotos(readable, unreadable, f"in memory ({readable.nbytes / 2**20:,.0f} MiB)")


def _decode(
    photos: Sequence[Photo], shape: tuple[int, int, int, int], method: str, into: Pixels | None
) -> dict[int, Exception]:
    """Decodes every photograph, the readable ones into the first rows; returns the others."""
    unreadable: dict[int, Exception] = {}

    def read(number: int) -> Pixels:
        return photo_reader.read(photos[number].path, *shape[1:], method)

    for number, found in photo_reader.each(read, len(photos)):
        if isinstance(found, Exception):
            unreadable[number] = found
        elif into is not None:
            into[number - len(unreadable)] = found
    return unreadable


def _on_disk(
    photos: Sequence[Photo], shape: tuple[int, int, int, int], method: str
) -> DecodedPhotos:
    """Returns pixels from a folder named after what they are made of; makes it first if needed."""
    settings = "\n".join([method, str(shape), *(photo.sha256 for photo in photos)])
    folder = user_cache.folder("photos") / hashlib.sha256(settings.encode()).hexdigest()[:32]
    try:
        if not folder.is_dir():
            _fill(folder, photos, shape, method)
    except OSError as error:
        raise DataError(
            f"pixels cannot be kept in {folder.parent}: {os_errors.reason(error)}; or name another "
            "cache with XDG_CACHE_HOME, or add --cache none"
        ) from error
    with (folder / UNREADABLE).open() as file:
        unreadable = {int(number): OSError(0, why) for number, why in json.load(file).items()}
    pixels = np.load(folder / PIXELS, mmap_mode="r")
    return DecodedPhotos(pixels[: len(photos) - len(unreadable)], unreadable, f"in {folder}")


def _fill(
    folder: Path, photos: Sequence[Photo], shape: tuple[int, int, int, int], method: str
) -> None:
    """Makes the folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    leftovers.remove(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder.parent))
    try:
        with leftovers.held(temporary):
            _write(temporary, photos, shape, method)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # another training was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path, photos: Sequence[Photo], shape: tuple[int, int, int, int], method: str
) -> None:
    pixels = np.lib.format.open_memmap(folder / PIXELS, "w+", np.uint8, shape)
    with (folder / PIXELS).open("r+b") as file:
        # Writing to a mapped file on a full disk kills the process; this only fails.
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    unreadable = _decode(photos, shape, method, pixels)
    pixels.flush()
    reasons = {number: unreadable_photos.reason(error) for number, error in unreadable.items()}
    (folder / UNREADABLE).write_text(json.dumps(reasons))
