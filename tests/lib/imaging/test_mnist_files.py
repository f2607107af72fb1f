import gzip
from pathlib import Path

import numpy as np
import pytest

from convserve_imaging import idx_files, mnist_files
from convserve_imaging.errors import DatasetError
from convserve_imaging.mnist_files import HELD_OUT, TEST_IMAGES, TEST_LABELS
from tests.jpegs import folder

NAMES = [
    "t10k-labels-idx1-ubyte",
    "t10k-labels.idx1-ubyte",
    "t10k-labels-idx1-ubyte.gz",
    "t10k-labels.idx1-ubyte.gz",
]


def test_held_out_digits_are_read_without_the_others(tmp_path: Path) -> None:
    for file in HELD_OUT:
        (tmp_path / f"{file.name}.gz").symlink_to(folder("mnist") / f"{file.name}.gz")
    contents = mnist_files.read_folder(tmp_path, HELD_OUT)
    images = mnist_files.verified(TEST_IMAGES, contents[TEST_IMAGES.name], "images")
    labels = mnist_files.verified(TEST_LABELS, contents[TEST_LABELS.name], "labels")
    assert images.shape == (10_000, 28, 28)
    assert images.dtype == np.uint8
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    with pytest.raises(DatasetError, match=": expected one of train-images-idx3-ubyte, "):
        mnist_files.read_folder(tmp_path)


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    data = gzip.decompress((folder("mnist") / f"{TEST_LABELS.name}.gz").read_bytes())
    changed = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(
        DatasetError, match=rf"^here: expected SHA-256 {TEST_LABELS.sha256}, got .*: it was"
    ):
        mnist_files.verified(TEST_LABELS, changed, "here")


@pytest.mark.parametrize("name", NAMES)
def test_file_is_found_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    assert not idx_files.has_held_out(tmp_path)
    content = b"content"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert idx_files.has_held_out(tmp_path)
    assert mnist_files.read_folder(tmp_path, [TEST_LABELS]) == {TEST_LABELS.name: content}


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"no folder {tmp_path / 'none'}"):
        mnist_files.read_folder(tmp_path / "none")


def test_bomb_is_cut_one_byte_after_its_proper_size() -> None:
    bomb = gzip.compress(bytes(2**24))
    assert len(mnist_files.gunzip(bomb, TEST_LABELS, "bomb")) == 10_009


@pytest.mark.parametrize("end", [-1, -10, 20])
def test_damaged_gzip_is_named(end: int) -> None:
    data = gzip.compress(bytes(10_000))[:end]
    with pytest.raises(DatasetError, match=r"^here: damaged gzip: "):
        mnist_files.gunzip(data, TEST_LABELS, "here")
