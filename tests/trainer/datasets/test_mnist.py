import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convserve_imaging import mnist_files
from convserve_imaging.mnist_files import FILES, TEST_LABELS, TRAIN_IMAGES, Contents
from convserve_trainer.datasets import mnist, mnist_sources
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.errors import DataError
from convserve_trainer.host import user_cache

LABELS = f"{TEST_LABELS.name}.gz"


@pytest.fixture
def copied(mnist_folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copied"
    copy.mkdir()
    for path in mnist_folder.glob("*.gz"):
        (copy / path.name).symlink_to(path)
    return copy


@pytest.fixture(scope="module")
def contents(mnist_folder: Path) -> Contents:
    return mnist_files.read_folder(mnist_folder)


def test_load_returns_the_digits_in_the_published_order(dataset: Dataset) -> None:
    assert dataset.train_images.shape == (60_000, 28, 28, 1)
    assert dataset.test_images.shape == (10_000, 28, 28, 1)
    assert dataset.train_images.dtype == dataset.train_labels.dtype == np.uint8
    assert dataset.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(dataset.test_labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


def test_load_takes_unpacked_files_with_a_dot(
    copied: Path, contents: Contents, dataset: Dataset
) -> None:
    (copied / LABELS).unlink()
    (copied / "t10k-labels.idx1-ubyte").write_bytes(contents[TEST_LABELS.name])
    assert mnist.load(copied).sha256() == dataset.sha256()


def test_missing_file_is_named_with_its_folder(copied: Path) -> None:
    (copied / LABELS).unlink()
    with pytest.raises(DataError, match=rf"{copied}: expected one of {TEST_LABELS.name}, .*\.gz"):
        mnist.load(copied)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no folder {tmp_path / 'none'}"):
        mnist.load(tmp_path / "none")


def _truncated(data: bytes) -> bytes:
    return data[:-100]


def _flipped(data: bytes) -> bytes:
    content = bytearray(gzip.decompress(data))
    content[-1] ^= 1
    return gzip.compress(bytes(content))


def _bomb(_: bytes) -> bytes:
    return gzip.compress(bytes.fromhex("00000801 00002710") + bytes(2**24))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, r"damaged gzip: it ends after [\d,]+ bytes of 10,008"),
        (lambda _: b"<html>", "begins with 00000801, got 3c68746d"),
        (lambda _: b"", "begins with 00000801, got nothing"),
        (lambda _: gzip.compress(b"<html>"), "begins with 00000801, got 3c68746d"),
        (_flipped, f"expected SHA-256 {TEST_LABELS.sha256}, got [0-9a-f]{{64}}"),
        (_bomb, "expected 10,008 bytes, got 10,009"),
    ],
)
def test_damaged_file_is_named_with_what_it_has(
    copied: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = copied / LABELS
    damaged = damage(path.read_bytes())
    path.unlink()
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=message) as caught:
        mnist.load(copied)
    assert str(copied) in str(caught.value)
    assert TEST_LABELS.name in str(caught.value)


def test_file_of_other_digits_is_refused(copied: Path) -> None:
    path = copied / f"{TRAIN_IMAGES.name}.gz"
    path.unlink()
    shutil.copy(copied / "t10k-images-idx3-ubyte.gz", path)
    with pytest.raises(DataError, match="expected 60000 x 28 x 28, got 10000 x 28 x 28"):
        mnist.load(copied)


def _sources(monkeypatch: pytest.MonkeyPatch, *fetches: Callable[[], Contents]) -> None:
    named = tuple((f"source {number}", fetch) for number, fetch in enumerate(fetches))
    monkeypatch.setattr(mnist_sources, "SOURCES", named)


def _unreachable() -> Contents:
    raise DataError("the network is cut")


def test_fetched_digits_are_cached_and_not_fetched_again(
    monkeypatch: pytest.MonkeyPatch, contents: Contents, cache: Path, dataset: Dataset
) -> None:
    lines: list[str] = []
    _sources(monkeypatch, _unreachable, lambda: contents)
    assert mnist.load(say=lines.append).sha256() == dataset.sha256()
    assert lines[1:] == ["MNIST comes from source 1"]
    assert sorted(os.listdir(cache)) == sorted(file.name for file in FILES)

    _sources(monkeypatch, _unreachable)
    assert mnist.load().sha256() == dataset.sha256()


def test_damaged_cache_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, contents: Contents, cache: Path
) -> None:
    lines: list[str] = []
    cache.mkdir(parents=True)
    for name, data in contents.items():
        (cache / name).write_bytes(data)
    (cache / TEST_LABELS.name).write_bytes(b"")
    _sources(monkeypatch, lambda: contents)
    mnist.load(say=lines.append)
    unused = f"the cached copy is not used: {cache}: {TEST_LABELS.name}: expected"
    assert lines[0].startswith(unused)
    assert (cache / TEST_LABELS.name).read_bytes() == contents[TEST_LABELS.name]


def test_changed_digits_of_a_source_are_refused(
    monkeypatch: pytest.MonkeyPatch, contents: Contents, cache: Path
) -> None:
    changed = contents[TEST_LABELS.name][:-1] + b"\1"
    _sources(monkeypatch, lambda: {**contents, TEST_LABELS.name: changed})
    with pytest.raises(DataError, match=f"source 0: {TEST_LABELS.name}: expected SHA-256"):
        mnist.load()
    assert not cache.exists()


def test_unwritable_cache_is_reported_and_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, contents: Contents, cache: Path
) -> None:
    lines: list[str] = []
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    _sources(monkeypatch, lambda: contents)
    assert len(mnist.load(say=lines.append).test_labels) == 10_000
    assert lines[-1] == f"it is not cached: {cache}: File exists"


def test_full_disk_leaves_no_half_cached_file(
    monkeypatch: pytest.MonkeyPatch, contents: Contents, cache: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    lines: list[str] = []
    monkeypatch.setattr(os, "replace", full)
    _sources(monkeypatch, lambda: contents)
    mnist.load(say=lines.append)
    assert lines[-1] == f"it is not cached: {cache}: No space left on device"
    assert list(cache.iterdir()) == []


def test_no_source_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _sources(monkeypatch, _unreachable, _unreachable)
    with pytest.raises(DataError) as caught:
        mnist.load()
    message = str(caught.value)
    assert "\n" not in message
    assert "--data FOLDER" in message
    assert all(f"{file.name}.gz" in message for file in FILES)
    assert message.count("the network is cut") == 2


@pytest.mark.parametrize("configured", ["", "relative/cache"])
def test_cache_folder_without_a_proper_variable_is_in_the_home(
    monkeypatch: pytest.MonkeyPatch, configured: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", configured)
    assert user_cache.folder("mnist") == Path.home() / ".cache" / "convserve" / "mnist"


def test_limit_takes_the_first_training_digits_only(dataset: Dataset) -> None:
    limited = dataset.limited(3)
    assert limited.train_labels.tolist() == [5, 0, 4]
    assert len(limited.train_images) == 3
    assert len(limited.test_images) == 10_000
    assert dataset.limited(None).sha256() == dataset.sha256() != limited.sha256()


def test_digest_covers_held_out_labels(dataset: Dataset) -> None:
    small = dataset.limited(1)
    changed = replace(small, test_labels=(small.test_labels + 1).astype(np.uint8))
    assert changed.sha256() != small.sha256()
