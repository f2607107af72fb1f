import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from convserve_trainer.datasets import pixel_store
from convserve_trainer.datasets.photo_list import as_values
from convserve_trainer.datasets.pictures import Pixels
from convserve_trainer.datasets.pixel_store import AHEAD, PixelStore, StoredPictures
from convserve_trainer.errors import DataError

SHAPE = (4, 6, 3)


def _digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def _pixels(number: int) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, SHAPE, np.uint8)


def _contents(numbers: Iterable[int]) -> np.ndarray:
    digests = b"".join(map(_digest, numbers))
    return as_values(np.frombuffer(digests, np.uint8).reshape(-1, 32))


def _fill(store: PixelStore, numbers: Iterable[int]) -> None:
    with store.writer(0) as writer:
        for number in numbers:
            writer.add(_digest(number), _pixels(number))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pictures a shard."""
    monkeypatch.setattr(pixel_store, "LEAST_BYTES", 3 * 4 * 6 * 3)


def _pictures(store: PixelStore, count: int) -> StoredPictures:
    positions = store.find(_contents(range(count)))
    return StoredPictures(store, positions, np.arange(count), np.zeros((count, 2), np.int64))


def test_pixels_come_back_by_content_from_any_shard(tmp_path: Path) -> None:
    store = PixelStore(tmp_path, SHAPE)
    _fill(store, range(10))
    assert len(list(tmp_path.iterdir())) == 4
    for each in (store, PixelStore(tmp_path, SHAPE)):
        order = [9, 0, 3, 3, 7]
        [(pixels, labels)] = _pictures(each, 10).batches(order, 5)
        assert labels.tolist() == order
        assert np.array_equal(pixels, np.stack([_pixels(number) for number in order]))
        assert each.find(_contents([10, 2]))[0] == -1 != each.find(_contents([10, 2]))[1]


def test_positions_stay_when_pictures_are_added(tmp_path: Path) -> None:
    store = PixelStore(tmp_path, SHAPE)
    _fill(store, range(5))
    pictures = _pictures(store, 5)
    _fill(store, range(5, 60))
    [(pixels, _)] = pictures.batches(range(5), 5)
    assert np.array_equal(pixels, np.stack([_pixels(number) for number in range(5)]))


def test_training_that_is_stopped_leaves_its_finished_shards(tmp_path: Path) -> None:
    store = PixelStore(tmp_path, SHAPE)

    def interrupted() -> Iterator[int]:
        yield from range(8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fill(store, interrupted())
    assert (store.find(_contents(range(8))) >= 0).tolist() == [True] * 6 + [False] * 2
    assert not list(tmp_path.glob(".*"))
    _fill(store, [6, 7])
    [(pixels, _)] = _pictures(PixelStore(tmp_path, SHAPE), 8).batches(range(8), 8)
    assert np.array_equal(pixels, np.stack([_pixels(number) for number in range(8)]))


@pytest.mark.parametrize("cut", [1, 16, 40, 200])
def test_damaged_shard_is_removed_and_the_others_serve(tmp_path: Path, cut: int) -> None:
    _fill(PixelStore(tmp_path, SHAPE), range(6))
    first = sorted(tmp_path.iterdir())[0]
    os.truncate(first, first.stat().st_size - cut)
    store = PixelStore(tmp_path, SHAPE)
    assert len(store) == 3
    assert not first.exists()
    assert len(PixelStore(tmp_path, (4, 6, 1))) == 0, "of another size"


def test_shard_that_is_cut_while_it_is_used_is_an_error(tmp_path: Path) -> None:
    store = PixelStore(tmp_path, SHAPE)
    _fill(store, range(3))
    pictures = _pictures(store, 3)
    os.truncate(next(tmp_path.iterdir()), 10)
    with pytest.raises(DataError, match="was cut while it was used"):
        list(pictures.batches(range(3), 3))


def test_disk_that_refuses_is_an_error_in_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PixelStore(tmp_path, SHAPE)
    _fill(store, range(3))

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    pictures = _pictures(store, 3)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(DataError, match="decoded pixels cannot be read: Input/output error"):
        list(pictures.batches(range(3), 3))


def test_no_more_than_some_batches_are_read_ahead(tmp_path: Path) -> None:
    store = PixelStore(tmp_path, SHAPE)
    _fill(store, range(3))
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken % 3

    batches = _pictures(store, 3).batches(endless(), 4)
    for consumed in range(1, 6):
        next(batches)
        assert taken == 4 * (AHEAD + consumed)
    batches.close()
    assert len(list(_pictures(store, 3).batches(endless(), 2, steps=5))) == 5


def test_worn_store_is_known_and_readers_keep_what_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PixelStore(tmp_path, SHAPE)
    _fill(store, range(10))
    other = _pictures(PixelStore(tmp_path, SHAPE), 10)
    assert not store.is_worn(5)
    assert store.is_worn(4)
    store.clear()
    assert len(store) == 0
    assert not list(tmp_path.iterdir())
    [(pixels, _)] = other.batches(range(10), 10)
    assert np.array_equal(pixels[9], _pixels(9))
    _fill(store, range(9))
    assert not store.is_worn(9)
    monkeypatch.setattr(pixel_store, "MOST_SHARDS", 2)
    assert store.is_worn(9)


def test_shards_of_a_large_set_are_larger(tmp_path: Path) -> None:
    store = PixelStore(tmp_path, SHAPE)
    with store.writer(128 * 5) as writer:
        for number in range(6):
            writer.add(_digest(number), _pixels(number))
    assert len(list(tmp_path.iterdir())) == 2
