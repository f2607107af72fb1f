"""The images that are sent: random pixels, made-up photos, or the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from convserve.calls import Images
from convserve.command.missing_input import MissingInput
from convserve.command.picture_paths import find, suffixes_of
from convserve.errors import InvalidRequest
from convserve.models import ModelInfo

#: Calls that differ, sent in turn, so that no cache makes a server look fast.
_CALLS = 16
#: Of files, which differ in what they cost.
_FILES = 64
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Material:
    """What calls are made of.

    Attributes:
        calls: The images of each call; calls are made in turn.
        what: What these images are.
        names: Where each file came from, by its bytes.
    """

    calls: Sequence[Images] = field(repr=False)
    what: str
    names: Mapping[bytes, str] = field(default_factory=dict, repr=False)


def material(
    model: ModelInfo, images: int, *, pictures: str | None, pixels: bool, seed: int
) -> Material:
    """Returns what calls to a model are made of.

    Args:
        model: The model that is asked.
        images: In each call.
        pictures: Folder of the files to send; None: pixels for a model of digits, made-up photos
            for one of photographs.
        pixels: Send random pixels, whatever the model was trained on.
        seed: Of the random pixels or photos.

    Raises:
        MissingInput: There is no such folder.
        InvalidRequest: There are no files in it, or one cannot be read.
    """
    if pictures is not None:
        suffixes = suffixes_of(model.file_formats)
        files = _files(pictures, suffixes)
        return Material(_dealt([*files], images), f"{len(files)} files of {pictures}", files)
    if pixels or model.kind != "photo":
        return Material(_random_pixels(model, images, seed), "random pixels")
    # Here, since it brings Pillow.
    from convserve_bench.made_up_photos import made_up_photo

    photos = [made_up_photo(seed + number) for number in range(_CALLS)]
    return Material(_dealt(photos, images), "made-up JPEGs")


def _random_pixels(model: ModelInfo, images: int, seed: int) -> list[Images]:
    shape = (images, *model.input_shape)
    count = max(1, min(_CALLS, _MOST_BYTES // int(np.prod(shape))))
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, shape, np.uint8) for _ in range(count)]


def _files(folder: str, suffixes: tuple[str, ...]) -> dict[bytes, str]:
    files = {}
    for found in islice(find([folder], suffixes), _FILES):
        try:
            if found.error is not None:
                raise found.error
            with open(found.path, "rb") as file:
                files[file.read()] = found.path
        except OSError as error:
            kind = InvalidRequest if os.path.exists(folder) else MissingInput
            raise kind.of("--pictures", f"{found.path}: {error.strerror or error}") from error
    return files


def _dealt(files: Sequence[bytes], images: int) -> list[Images]:
    """Returns calls that together hold each file at least once."""
    calls: list[Images] = []
    total = 0
    for first in range(0, len(files), images):
        call = tuple(files[(first + offset) % len(files)] for offset in range(images))
        total += sum(map(len, call))
        if calls and total > _MOST_BYTES:
            break
        calls.append(call)
    return calls
