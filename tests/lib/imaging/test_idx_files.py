import bz2
import gzip
import lzma
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from convserve_imaging import idx, idx_files
from convserve_imaging.errors import DatasetError
from convserve_imaging.idx_files import HELD_OUT, TRAIN
from tests.trainer.idx_files import encoded, labelled, write

LABELS = "train-labels-idx1-ubyte"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(12, 16, 3), (12, 16, 1), (12, 16)])
def test_pictures_of_any_size_and_colour_are_read(
    tmp_path: Path, shape: tuple[int, ...], packed: bool
) -> None:
    write(tmp_path, (2, 3), shape=shape, packed=packed)
    found = idx_files.read_pair(tmp_path, TRAIN)
    images, labels = labelled((2, 3), shape, seed=1)
    assert found.images.shape == (5, 12, 16, 3 if shape[2:] == (3,) else 1)
    assert np.array_equal(found.images, images.reshape(found.images.shape))
    assert np.array_equal(found.labels, labels)


def test_file_that_says_its_four_axes_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").rename(tmp_path / "t10k-images.idx4-ubyte")
    assert idx_files.read_pair(tmp_path, HELD_OUT).images.shape == (30, 12, 16, 3)


@pytest.mark.parametrize("size", [1, 19, 20, 21, 100_003, 5_000_000])
def test_compressed_file_of_any_length_is_read_whole(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).integers(0, 4, size, np.uint8)
    (tmp_path / "labels.gz").write_bytes(gzip.compress(encoded(content), 1))
    assert np.array_equal(idx_files.read(tmp_path / "labels.gz"), content)


def _repacked(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: gzip.compress(change(gzip.decompress(data)))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("images-idx3", lambda data: data[:-200], r"damaged gzip: it ends after [\d,]+ bytes of"),
        ("labels-idx1", lambda data: data[:-9], "damaged gzip: it ends after "),
        ("labels-idx1", lambda data: data[:-5] + bytes(5), "damaged gzip: CRC check failed"),
        ("labels-idx1", lambda data: data + b"more", r"damaged gzip: Not a gzipped file \(b'mo'"),
        ("labels-idx1", lambda _: b"<html>", "to 04, got 3c68746d"),
        ("labels-idx1", lambda _: b"", "to 04, got nothing"),
        ("labels-idx1", lzma.compress, r"ubyte.gz: expected IDX or gzip, got xz; unpack it: xz -d"),
        ("labels-idx1", bz2.compress, "expected IDX or gzip, got bzip2; unpack it: bzip2 -d"),
        (
            "labels-idx1",
            _repacked(lambda _: b"<html>"),
            "begins with 000008 and its number of axes, 01 to 04, got 3c68746d",
        ),
        ("images-idx3", _repacked(lambda data: data[:10]), "ends within its header"),
        ("images-idx3", _repacked(lambda data: data[:-7]), "expected 2,900 bytes, got 2,893"),
        ("labels-idx1", _repacked(lambda data: data + bytes(2**24)), "expected 13 bytes, got 20"),
        (
            "labels-idx1",
            _repacked(lambda data: encoded(np.zeros(4, np.uint8))),
            r"labels-idx1-ubyte.gz: expected 5 labels, one for each picture of .*, got 4",
        ),
        (
            "labels-idx1",
            _repacked(lambda data: encoded(np.zeros((5, 1), np.uint8))),
            "expected labels of one axis, got 5 x 1",
        ),
        (
            "images-idx3",
            _repacked(lambda data: encoded(np.zeros((5, 4, 4, 2), np.uint8))),
            r"N x rows x columns, or with 1 or 3 channels as a fourth axis, got 5 x 4 x 4 x 2",
        ),
        (
            "images-idx3",
            _repacked(lambda data: encoded(np.zeros((5, 0, 4), np.uint8))),
            "expected pictures of N x rows x columns, .*, got 5 x 0 x 4",
        ),
        (
            "images-idx3",
            _repacked(lambda data: data[:2] + b"\x0d" + data[3:]),  # floats
            "begins with 000008 and its number of axes, 01 to 04, got 00000d04",
        ),
    ],
)
def test_bad_file_is_one_line_that_names_it(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    write(tmp_path, (2, 3), packed=True)
    path = tmp_path / f"train-{name}-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=message) as caught:
        idx_files.read_pair(tmp_path, TRAIN)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bomb_is_unpacked_no_further_than_its_header_says(tmp_path: Path) -> None:
    bomb = gzip.compress(idx.header((10,)) + bytes(2**26))
    (tmp_path / f"{LABELS}.gz").write_bytes(bomb)
    with pytest.raises(DatasetError, match="expected 18 bytes, got 20"):
        idx_files.read(tmp_path / f"{LABELS}.gz")


MEMBERS = {
    "one": [],
    "two, cut within the header": [5],
    "two, cut within the pixels": [500],
    "one a byte of the header": list(range(1, 17)),
    "an empty one in between": [7, 7],
}


@pytest.mark.parametrize("cuts", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("tail", [b"", bytes(1), bytes(4_096)])
def test_all_members_are_read_under_any_name(
    tmp_path: Path, cuts: list[int | None], tail: bytes
) -> None:
    content, _ = labelled((2, 3), seed=1)
    plain = encoded(content)
    parts = [plain[start:end] for start, end in pairwise([None, *cuts, None])]
    (tmp_path / "images").write_bytes(b"".join(map(gzip.compress, parts)) + tail)
    assert np.array_equal(idx_files.read(tmp_path / "images"), content)


def test_plain_file_that_is_named_gz_is_read(tmp_path: Path) -> None:
    content = np.arange(7, dtype=np.uint8)
    (tmp_path / "labels.gz").write_bytes(encoded(content))
    assert np.array_equal(idx_files.read(tmp_path / "labels.gz"), content)


def test_header_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    claimed = idx.header((2**31, 2**31, 2**31)) + bytes(9)
    for name, data in (("plain", claimed), ("packed", gzip.compress(claimed))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DatasetError, match="expected 9,903,520,314,283,042,.* bytes, got 25"):
            idx_files.read(tmp_path / name)


def test_no_pictures_at_all_are_refused(tmp_path: Path) -> None:
    write(tmp_path, (0, 0))
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte: expected pictures, got none"):
        idx_files.read_pair(tmp_path, TRAIN)


def test_missing_file_is_named_as_it_may_be_called(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(
        DatasetError, match=rf"{tmp_path}: expected one of train-images-idx3-ubyte, .*4"
    ):
        idx_files.read_pair(tmp_path, TRAIN)
    with pytest.raises(DatasetError, match="no folder"):
        idx_files.read_pair(tmp_path / "none", TRAIN)
