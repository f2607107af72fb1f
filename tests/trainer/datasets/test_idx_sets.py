import gzip
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_imaging import idx_files
from convserve_imaging.mnist_files import TEST_LABELS
from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, IMAGE_KIND_PIXELS, InputSpec, Manifest
from convserve_trainer.datasets import idx, idx_sets
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.datasets.pictures import Batch, Data, Pictures, Source
from convserve_trainer.errors import DataError, UsageError
from tests.trainer.idx_files import encoded, labelled, write


def _load(
    folder: Path, names: list[str] | None = None, limit: int | None = None
) -> tuple[Data, list[str]]:
    lines: list[str] = []
    return idx_sets.load(folder, names, limit, lines.append), lines


def _all(pictures: Pictures) -> Batch:
    [(pixels, labels)] = pictures.batches(range(len(pictures)), len(pictures))
    return pixels, labels


def test_data_set_of_its_own_is_described_in_one_line(tmp_path: Path) -> None:
    data, lines = _load(write(tmp_path / "colours"))
    assert lines == [
        f"{tmp_path / 'colours'}: 60 pictures to train on and 30 held out, 12 x 16 RGB, 3 classes; "
        "not MNIST's bytes"
    ]
    assert data.labels == ("0", "1", "2")
    assert data.spec == InputSpec(
        height=12, width=16, channels=3, kind=IMAGE_KIND_PIXELS, resize="pixels/1"
    )
    pixels, labels = _all(data.train)
    images, right = labelled((20, 20, 20), seed=1)
    assert np.array_equal(pixels, images)
    assert np.array_equal(labels, right)


def test_held_out_pictures_are_mixed_so_that_any_first_part_is_fair(tmp_path: Path) -> None:
    data, _ = _load(write(tmp_path, held_out=(40, 40, 40)))
    pixels, labels = _all(data.held_out)
    assert set(labels[:12].tolist()) == {0, 1, 2}
    assert np.bincount(labels).tolist() == [40, 40, 40]
    assert (pixels.mean(axis=(1, 2)).argmax(axis=1) == labels).all(), "labels stay with pictures"


def test_digest_follows_the_content_and_not_the_packing(tmp_path: Path) -> None:
    plain, _ = _load(write(tmp_path / "plain"))
    packed, _ = _load(write(tmp_path / "packed", packed=True))
    other, _ = _load(write(tmp_path / "other", (21, 20, 20)))
    assert plain.sha256 == packed.sha256 != other.sha256


def test_limit_takes_all_classes_alike_though_the_file_is_sorted(tmp_path: Path) -> None:
    data, _ = _load(write(tmp_path), limit=7)
    assert np.bincount(data.train.labels).tolist() == [3, 2, 2]
    assert len(data.held_out) == 30
    images, _ = labelled((20, 20, 20), seed=1)
    assert np.array_equal(_all(data.train)[0], images[[0, 1, 2, 20, 21, 40, 41]])


def test_names_come_from_the_option_then_the_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "labels.txt").write_bytes("\ufeffrouge\r\nvert foncé\r\nbleu\r\n\r\n".encode())
    assert _load(tmp_path)[0].labels == ("rouge", "vert foncé", "bleu")
    assert _load(tmp_path, ["r", "g", "b"])[0].labels == ("r", "g", "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a\nb\n", r"a picture has the label 2, but .*labels.txt names 2 classes, 0 to 1"),
        ("a\nb\nc\nd\n", r"no picture to train on of the class d \(label 3\); labels must"),
        ("a\n\nc\n", "labels.txt: class 1: expected a name of printable text, got ''"),
        ("a\nb\na\n", "labels.txt: 'a' is there twice"),
        (b"\xff\xfe\x00", "labels.txt: not a text file"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    tmp_path: Path, names: str | bytes, message: str
) -> None:
    write(tmp_path)
    content = names if isinstance(names, bytes) else names.encode()
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        _load(tmp_path)


def test_classes_that_have_no_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="no picture to train on of the class 1; labels must follow"
    ):
        _load(write(tmp_path / "train", (3, 0, 3)))
    with pytest.raises(DataError, match="no picture held out of the class 0, 2; labels must"):
        _load(write(tmp_path / "held-out", held_out=(0, 3, 0)))
    with pytest.raises(DataError, match="has one class only: two or more are needed"):
        _load(write(tmp_path / "one", (3,), (3,)))


def _write_from(first: int, folder: Path, **more: Any) -> Path:
    """Writes a data set whose labels begin with another number than 0."""
    write(folder, **more)
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        labels = np.frombuffer((folder / name).read_bytes(), np.uint8, offset=8)
        (folder / name).write_bytes(encoded(labels + np.uint8(first)))
    return folder


@pytest.mark.parametrize("first", [1, 5, 253])
def test_labels_may_begin_with_any_number(tmp_path: Path, first: int) -> None:
    data, lines = _load(_write_from(first, tmp_path))
    assert data.labels == (str(first), str(first + 1), str(first + 2))
    assert f"3 classes with the labels {first} to {first + 2}; " in lines[0]
    assert np.bincount(data.train.labels).tolist() == [20, 20, 20]
    named, _ = _load(tmp_path, ["a", "b", "c"])
    assert named.labels == ("a", "b", "c")
    for labels in (data.labels, named.labels):
        pictures = idx_sets.held_out(tmp_path, None, _manifest(labels))
        assert np.array_equal(_all(pictures)[1], _all(data.held_out)[1])


@pytest.mark.parametrize("names", [["_", "a", "b", "c"], ["a", "b"]])
def test_names_for_labels_from_one_are_as_many(tmp_path: Path, names: list[str]) -> None:
    _write_from(1, tmp_path)
    message = rf"are 1 to 3: expected 3 names from --labels, got {len(names)}$"
    with pytest.raises(DataError, match=message):
        _load(tmp_path, names)
    (tmp_path / "labels.txt").write_text("\n".join(names))
    with pytest.raises(DataError, match=f"expected 3 names from .*labels.txt, got {len(names)}$"):
        _load(tmp_path)


def test_labels_with_a_gap_are_named(tmp_path: Path) -> None:
    _write_from(1, tmp_path, train=(3, 0, 3, 3), held_out=(3, 0, 3, 3), shape=(12, 16))
    with pytest.raises(DataError, match="no picture to train on of the class 2; labels must foll"):
        _load(tmp_path)
    with pytest.raises(DataError, match=r"no picture to train on of the class b \(label 2\); labe"):
        _load(tmp_path, ["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("labels", "names", "first"),
    [
        ([0, 1, 2], "abc", 0),
        ([1, 2, 3], "abc", 1),
        ([1, 2], "abc", 0),  # of 0 to 2, as a part of any data set may be
        ([1, 2], "123", 1),
        ([0, 1, 2], "123", 0),
        ([4, 9], "345678", 4),
        ([2, 3], "0123", 0),
        ([9], "abc", 0),
    ],
)
def test_first_label_follows_from_the_labels_or_their_names(
    labels: list[int], names: str, first: int
) -> None:
    assert idx_files.first_label(np.array(labels, np.uint8), list(names)) == first


def _as_emnist(folder: Path, name: str = "emnist-letters") -> Path:
    """Writes a data set under EMNIST's names, numbered from 1."""
    made = _write_from(1, folder / "made", shape=(28, 28))
    for part, its in (("train", "train"), ("t10k", "test")):
        for kind in ("images-idx3", "labels-idx1"):
            packed = gzip.compress((made / f"{part}-{kind}-ubyte").read_bytes())
            (folder / f"{name}-{its}-{kind}-ubyte.gz").write_bytes(packed)
    shutil.rmtree(made)
    return folder


def test_files_may_have_the_names_of_emnist(tmp_path: Path) -> None:
    data, _ = _load(_as_emnist(tmp_path))
    assert data.labels == ("1", "2", "3")
    assert (len(data.train), len(data.held_out)) == (60, 30)
    assert idx_files.has_held_out(tmp_path)
    manifest = _manifest(data.labels, height=28, width=28, channels=1)
    assert len(idx_sets.held_out(tmp_path, None, manifest)) == 30


def test_files_of_several_data_sets_are_named(tmp_path: Path) -> None:
    _as_emnist(_as_emnist(tmp_path), "emnist-digits")
    message = r"files of one data set, got those of 2 \(emnist-digits, emnist-letters\); move one's"
    with pytest.raises(DataError, match=message):
        _load(tmp_path)


def test_parts_of_other_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    images, _ = labelled((10, 10, 10), (12, 12))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(encoded(images))
    with pytest.raises(DataError, match="train on have 12 x 16 RGB, those held out 12 x 12 grey"):
        _load(tmp_path)


def test_limit_below_the_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="--limit: expected 3 or more, a picture of each class, got 2"
    ):
        _load(write(tmp_path), limit=2)


def test_damaged_file_is_an_error_in_the_data(tmp_path: Path) -> None:
    path = write(tmp_path) / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=f"{path}: expected 17,300 bytes, got 17,295"):
        _load(tmp_path)


def test_fashion_mnist_is_known_by_its_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = (2,) * 10
    write(tmp_path, counts, counts, (28, 28), packed=True)
    digests = {
        name: hashlib.sha256((tmp_path / f"{name}.gz").read_bytes()).hexdigest()
        for name in idx_sets.FASHION_MNIST
    }
    assert _load(tmp_path)[0].labels[:2] == ("0", "1")
    monkeypatch.setattr(idx_sets, "FASHION_MNIST", digests)
    data, lines = _load(tmp_path)
    assert lines[0].endswith("28 x 28 grey, 10 classes; Fashion-MNIST")
    assert data.labels[7:] == ("Sneaker", "Bag", "Ankle boot")


def _manifest(labels: tuple[str, ...] = ("r", "g", "b"), **spec: Any) -> Manifest:
    values = {"height": 12, "width": 16, "channels": 3, "kind": IMAGE_KIND_PIXELS} | spec
    return Manifest(name="colours", labels=labels, input=InputSpec(**values))


def test_bundles_names_are_those_of_data_without(tmp_path: Path) -> None:
    pictures = idx_sets.held_out(write(tmp_path), None, _manifest())
    again, _ = _load(tmp_path)
    assert np.array_equal(_all(pictures)[0], _all(again.held_out)[0])


@pytest.mark.parametrize(
    ("manifest", "names", "message"),
    [
        (_manifest(("r", "g")), None, "has the label 2, but the bundle names 2 classes, 0 to 1"),
        (
            _manifest(),
            ["r", "b", "g"],
            "expected the classes of the bundle colours, r, g, b, got r, b, g",
        ),
        (_manifest(width=12), None, "of 12 x 12 x 3 for the bundle colours, got 12 x 16 x 3"),
    ],
)
def test_data_of_another_bundle_are_refused(
    tmp_path: Path, manifest: Manifest, names: list[str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        idx_sets.held_out(write(tmp_path), names, manifest)


def test_bundle_of_digits_takes_mnist_alone(tmp_path: Path) -> None:
    digits = _manifest(tuple("0123456789"), kind=IMAGE_KIND_DIGITS)
    write(tmp_path, shape=(28, 28))
    with pytest.raises(DataError, match="the bundle colours is for MNIST alone"):
        idx.held_out(Source(tmp_path), digits, print)
    reversed_labels = _manifest(tuple("9876543210"), kind=IMAGE_KIND_DIGITS)
    with pytest.raises(
        DataError, match="expected those of MNIST, 0, 1, 2.*, got from the bundle colours 9, 8, 7"
    ):
        idx.held_out(Source(tmp_path), reversed_labels, print)


def test_bundle_of_pixels_needs_its_data() -> None:
    with pytest.raises(
        UsageError, match="--data: expected the folder of the data set that the bundle colours was"
    ):
        idx.held_out(Source(None), _manifest(), print)


@pytest.fixture
def copied(mnist_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(mnist_folder, tmp_path / "copied", copy_function=shutil.copyfile)
    return tmp_path / "copied"


def _source(folder: Path, names: list[str] | None = None) -> tuple[Data, list[str]]:
    lines: list[str] = []
    source = Source(folder, labels=names, ignore_accuracy_floor=True)
    return idx.load(source, None, lines.append), lines


def test_bytes_of_mnist_are_mnist(copied: Path, dataset: Dataset) -> None:
    data, lines = _source(copied)
    assert (data.what, data.ignore_accuracy_floor, lines) == ("digits", False, [])
    assert data.spec.resize == "mnist-centre/1"
    assert data.sha256 == dataset.sha256()
    with pytest.raises(
        UsageError, match="--labels: expected for other data than MNIST only, got a,b"
    ):
        _source(copied, list("abcdefghij"))


def test_mnist_with_a_changed_file_is_described_as_that(copied: Path) -> None:
    labels = np.arange(10_000, dtype=np.uint8) % 10
    (copied / TEST_LABELS.name).write_bytes(encoded(labels))
    data, lines = _source(copied)
    assert lines[0].endswith("10 classes; MNIST's bytes, but for t10k-labels-idx1-ubyte")
    assert data.spec.resize == "pixels/1"
    assert data.ignore_accuracy_floor
