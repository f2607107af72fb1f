"""The photographs that the demo makes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve_imaging.photos import decode
from convserve_trainer.datasets.mnist import Dataset
from examples.demo import digits, photo_set

pytestmark = pytest.mark.timeout(1000)


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A few strokes for ones, squares for zeros."""
    monkeypatch.setattr(photo_set, "TRAIN", 6)
    monkeypatch.setattr(photo_set, "VALIDATION", 3)
    images = np.zeros((40, 28, 28, 1), np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 4
    images[:, 4:24, 13:15] = 255
    images[labels == 0, 4:24, 8:20] = 255
    return Dataset(images, labels, images[::-1], labels[::-1])


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.jpg")}


def test_a_digit_of_each_kind_is_left_as_it_is(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    labels = np.array([3, 0, 3, 9], np.uint8)
    digits.leave(tmp_path / "made" / "digits", Dataset(images, labels, images, labels))
    left = {file.name: np.asarray(Image.open(file)) for file in (tmp_path / "made").rglob("*.png")}
    assert sorted(left) == ["0.png", "3.png", "9.png"]
    assert (left["3.png"] == images[0, :, :, 0]).all()
    assert (left["9.png"] == images[3, :, :, 0]).all()


def test_set_has_varied_jpegs_of_both_classes_and_is_the_same_each_time(
    dataset: Dataset, tmp_path: Path
) -> None:
    photo_set.make(tmp_path / "set", dataset)
    made = files(tmp_path / "set")
    assert len([name for name in made if name.startswith("train/ones/")]) == 6
    assert len([name for name in made if name.startswith("validation/zeros/")]) == 3
    assert len(made) == 18
    assert all(decode(data, 64, 64).shape == (64, 64, 3) for data in made.values())
    sizes = {Image.open(io.BytesIO(data)).size for data in made.values()}
    assert len(sizes) > 9
    photo_set.make(tmp_path / "again", dataset)
    assert files(tmp_path / "again") == made


def test_no_scene_of_the_training_is_met_again_in_validation(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Digits that are all alike leave the scenes alone to tell the pictures apart.
    for images in (dataset.train_images, dataset.test_images):
        images[:] = images[1]
    monkeypatch.setattr(photo_set, "VALIDATION", 6)
    photo_set.make(tmp_path / "set", dataset)
    made = files(tmp_path / "set")
    assert len(set(made.values())) == len(made)


def test_set_that_is_there_is_left_alone(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    photo_set.make(tmp_path / "set", dataset)
    assert files(tmp_path / "set") == {}
