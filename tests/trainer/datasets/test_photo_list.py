import hashlib
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from convserve_trainer.datasets.photo_list import Photo, PhotoFiles, PhotoTable


def _photo(number: int, content: bytes, name: str = "") -> Photo:
    name = name or f"{number}.jpg"
    return Photo(Path(name), name, number % 2, hashlib.sha256(content).hexdigest(), (number, 7))


def test_files_are_photos_with_path_name_and_class() -> None:
    odd = os.fsdecode(b"\xff\xfe.jpg")
    files = PhotoFiles([Path("a"), Path("b")], ["A", "B"], [(0, "1.jpg"), (1, odd), (0, "c/2.jpg")])
    assert list(files) == [
        Photo(Path("a/1.jpg"), "A/1.jpg", 0),
        Photo(Path("b") / odd, f"B/{odd}", 1),
        Photo(Path("a/c/2.jpg"), "A/c/2.jpg", 0),
    ]
    assert files[-1] == files[2]
    assert files[:2] == [files[0], files[1]]
    assert files.labels.tolist() == [0, 1, 0]
    with pytest.raises(IndexError):
        files[3]


def test_table_gives_back_what_was_put_in_and_takes_parts() -> None:
    photos = [_photo(number, b"%d" % number) for number in range(5)]
    table = PhotoTable.of(photos)
    assert list(table) == photos
    assert list(table.take(np.array([3, 1]))) == [photos[3], photos[1]]
    assert list(table.take(table.labels == 1)) == [photos[1], photos[3]]
    assert table.take(np.array([3, 1])).labels.tolist() == [1, 1]
    assert list(PhotoTable.of([])) == []


def test_order_of_content_is_that_of_digests_and_then_of_names() -> None:
    contents = [b"a", b"b", b"a", b"c", b"a", b"b"]
    names = ["z", "y", "x", "w", "v", "u"]
    photos = [_photo(n, content, names[n]) for n, content in enumerate(contents)]
    found = list(PhotoTable.of(photos).by_content())
    assert found == sorted(photos, key=lambda photo: (photo.sha256, photo.name))


def test_file_costs_less_than_two_hundred_bytes() -> None:
    count = 20_000
    tracemalloc.start()
    try:
        names = ((n % 10, f"n01440764_{n:08}.JPEG") for n in range(count))
        files = PhotoFiles([Path(f"c{n}") for n in range(10)], [f"c{n}" for n in range(10)], names)
        table = PhotoTable.unread(files)
        half = table.take(np.arange(0, count, 2))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(half) == count / 2
    assert held / count < 200


def test_stamp_changes_with_content_name_and_times(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"one")
    first = Photo(file, "a", 0).stamp()
    assert Photo(file, "a", 0).stamp() == first
    times = file.stat()
    other = tmp_path / "other"
    other.write_bytes(b"two")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, file)
    assert file.stat().st_mtime_ns == times.st_mtime_ns
    assert Photo(file, "a", 0).stamp() != first
    file.rename(tmp_path / "b.jpg")
    with pytest.raises(FileNotFoundError):
        Photo(file, "a", 0).stamp()
