import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from convserve_imaging import photos as imaging
from convserve_trainer.datasets import photo_reader
from convserve_trainer.datasets.photo_list import Photo, PhotoTable
from convserve_trainer.datasets.photo_reader import AHEAD, PhotoPictures
from convserve_trainer.datasets.pictures import Pixels
from convserve_trainer.datasets.unreadable_photos import UnreadablePhotos
from convserve_trainer.errors import DataError
from tests.trainer.drawn import draw

SIZE = (16, 24)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return sorted(draw(tmp_path, {"red": 5, "blue": 5}).rglob("*.jpg"))


def _pictures(files: list[Path], allowed: float = 0.0) -> tuple[PhotoPictures, UnreadablePhotos]:
    losses = UnreadablePhotos(files[0].parents[1], len(files), allowed)
    photos = [Photo(path, path.name, number) for number, path in enumerate(files)]
    return PhotoPictures(PhotoTable.unread(photos), *SIZE, losses), losses


def _labels(
    pictures: PhotoPictures, order: Iterable[int], size: int, steps: int | None = None
) -> list[list[int]]:
    return [labels.tolist() for _, labels in pictures.batches(order, size, steps)]


def test_batches_have_the_pixels_of_the_imaging_package_in_the_order_asked_for(
    files: list[Path],
) -> None:
    pictures, _ = _pictures(files)
    order = [3, 1, 9, 0, 3, 2, 8]
    batches = list(pictures.batches(order, 3))
    assert [labels.tolist() for _, labels in batches] == [[3, 1, 9], [0, 3, 2], [8]]
    for pixels, labels in batches:
        assert pixels.dtype == np.uint8
        assert pixels.shape == (len(labels), *SIZE, 3)
        for found, number in zip(pixels, labels, strict=True):
            assert np.array_equal(found, imaging.decode(files[number].read_bytes(), *SIZE))


def test_pixels_of_files_are_those_of_the_batches(files: list[Path]) -> None:
    pictures, _ = _pictures(files)
    [(pixels, _)] = pictures.batches(range(10), 10)
    assert np.array_equal(photo_reader.pixels_of(files, *SIZE), pixels)


def test_never_more_than_some_batches_are_begun(files: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken % 10

    batches = _pictures(files)[0].batches(endless(), 4)
    for consumed in range(1, 6):
        next(batches)
        assert taken == 4 * (AHEAD + consumed)
    batches.close()


def test_steps_end_an_endless_order_and_nothing_is_begun_for_nothing(files: list[Path]) -> None:
    order = iter(range(10))
    assert _labels(_pictures(files)[0], order, 2, steps=3) == [[0, 1], [2, 3], [4, 5]]
    assert next(order) == 6


def test_pictures_are_decoded_side_by_side(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)

    def meet(*_: object) -> Pixels:
        both.wait(timeout=60)
        return np.zeros((*SIZE, 3), np.uint8)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(photo_reader, "read_photo", meet)
    assert len(_labels(_pictures(files)[0], range(10), 5)) == 2


def test_picture_that_goes_away_is_replaced_by_the_next_and_named(files: list[Path]) -> None:
    pictures, losses = _pictures(files, allowed=0.2)
    files[1].unlink()
    files[4].write_bytes(b"\xff\xd8 no more")
    assert _labels(pictures, range(10), 3) == [[0, 2, 9], [3, 5], [6, 7, 8]]
    [note] = losses.notes()
    assert note.startswith("2 of 10 pictures cannot be read and are left out: ")
    assert f"{files[1]} (No such file or directory)" in note
    assert f"{files[4]} (the JPEG is truncated" in note
    assert losses.notes() == [], "it is reported once"
    assert _labels(pictures, range(10), 5) == [[0, 2, 3, 5, 6], [7, 8, 9]]
    assert losses.notes() == [], "it is not asked for again"


def test_more_pictures_going_away_than_allowed_is_an_error(files: list[Path]) -> None:
    pictures, _ = _pictures(files, allowed=0.2)
    for path in files[:3]:
        path.unlink()
    with pytest.raises(DataError) as caught:
        _labels(pictures, range(10), 5)
    assert str(caught.value).startswith(
        "3 of 10 pictures cannot be read, more than the share of 0.2 that --max-unreadable lets "
        f"pass: {files[0]} (No such file or directory), "
    )
    assert str(caught.value).endswith(f"check-data {files[0].parents[1]} tells more")


def test_all_pictures_going_away_ends_an_endless_order(files: list[Path]) -> None:
    pictures, _ = _pictures(files, allowed=1.0)
    for path in files:
        path.unlink()
    with pytest.raises(DataError, match="every picture went away"):
        _labels(pictures, itertools.cycle(range(10)), 5)
