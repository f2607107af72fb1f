import numpy as np
import numpy.typing as npt
import pytest

from convserve_trainer.nets import keras_backend
from convserve_trainer.nets.mixing import Mixing

Array = npt.NDArray[np.float32]


def _mixed(mixup: float = 0.0, cutmix: float = 0.0, count: int = 400) -> tuple[Mixing, Array]:
    """Returns the layer and what it made of pictures of which each has one level, its number."""
    keras_backend.load().utils.set_random_seed(1)
    layer = Mixing(mixup=mixup, cutmix=cutmix)
    levels = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    return layer, np.array(layer(levels + np.zeros((count, 10, 8, 1), np.float32), training=True))


def test_nothing_is_mixed_outside_of_training() -> None:
    pictures = np.random.default_rng(0).random((4, 5, 6, 3)).astype(np.float32)
    assert np.array_equal(np.array(Mixing(mixup=1.0)(pictures)), pictures)


def test_mixup_lays_the_picture_before_over_each_and_mixes_labels_alike() -> None:
    layer, mixed = _mixed(mixup=0.4)
    kept = np.array(layer.kept)
    numbers = np.arange(400)
    expected = kept * numbers + (1 - kept) * np.roll(numbers, 1)
    assert mixed[:, 3, 4, 0] == pytest.approx(expected, abs=1e-3)
    assert np.ptp(mixed, axis=(1, 2, 3)).max() == 0
    labels = np.eye(400, dtype=np.float32)
    of_both = np.array(layer.mixed(labels))
    assert of_both.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert of_both[numbers, numbers] == pytest.approx(kept, abs=1e-6)
    assert of_both[numbers, numbers - 1] == pytest.approx(1 - kept, abs=1e-6)
    weights = np.array(layer.mixed(numbers.astype(np.float32)))
    assert weights == pytest.approx(expected, abs=1e-3)


def test_shares_are_of_the_beta_distribution() -> None:
    layer, _ = _mixed(mixup=0.4, count=4000)
    kept = np.array(layer.kept)
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept.var() == pytest.approx(1 / (4 * 1.8), abs=0.01)  # 1 / (4 (2 a + 1))


def test_cutmix_puts_in_one_box_and_counts_its_area() -> None:
    layer, mixed = _mixed(cutmix=1.0)
    numbers = np.arange(400).reshape(-1, 1, 1)
    own, other = mixed[..., 0] == numbers, mixed[..., 0] == np.roll(numbers, 1)
    assert (own | other).all()
    rows, columns = other.any(axis=2).sum(axis=1), other.any(axis=1).sum(axis=1)
    assert np.array_equal(other.sum(axis=(1, 2)), rows * columns)
    assert np.array(layer.kept) == pytest.approx(own.mean(axis=(1, 2)), abs=1e-6)
    assert 0.4 < np.array(layer.kept).mean() < 0.75  # at a border a part of the box is beyond it


def test_with_both_every_second_picture_is_mixed_in_each_way() -> None:
    _, mixed = _mixed(mixup=1.0, cutmix=1.0)
    flat = np.ptp(mixed, axis=(1, 2, 3)) == 0
    assert 0.4 < flat.mean() < 0.7


def test_without_amounts_pictures_are_kept_for_a_teacher() -> None:
    layer, mixed = _mixed()
    assert layer.kept is None
    assert np.array_equal(np.array(layer.pictures), mixed)
    labels = np.eye(3, dtype=np.float32)
    assert layer.mixed(labels) is labels
