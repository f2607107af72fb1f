from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve_trainer.nets import keras_backend
from convserve_trainer.nets.augmentation import RandomChange
from convserve_trainer.recipes.augmentation import Augmentation

NONE = {name: getattr(Augmentation(), name) for name in Augmentation.__struct_fields__}
Pictures = npt.NDArray[np.float32]


def _changed(pictures: Pictures, seed: int = 1, training: bool = True, **amounts: Any) -> Pictures:
    keras_backend.load().utils.set_random_seed(seed)
    return np.array(RandomChange(**NONE | amounts)(pictures, training=training))


def _scenes(count: int = 64, size: int = 21, channels: int = 3) -> Pictures:
    values = np.random.default_rng(0).random((count, size, size, channels))
    return values.astype(np.float32)


def _cross() -> Pictures:
    """A bright point to the right of the middle, alike in 400 pictures."""
    pictures = np.zeros((400, 41, 41, 1), np.float32)
    pictures[:, 20, 30] = 1
    return pictures


def _points(pictures: Pictures) -> npt.NDArray[np.float64]:
    """Returns where the point went, rows and columns from the middle, [N, 2]."""
    grid = np.indices(pictures.shape[1:3]) - 20
    weights = pictures[..., 0] / pictures[..., 0].sum(axis=(1, 2), keepdims=True)
    return np.stack([(weights * grid[0]).sum((1, 2)), (weights * grid[1]).sum((1, 2))], axis=1)


EVERY: dict[str, Any] = {
    **{"rotation": 20.0, "shear": 10.0, "zoom": 0.2, "stretch": 0.2, "crop": 0.3},
    **{"shift": 0.1, "elastic": 0.03, "flip": True},
    **{"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "levels": 1.0, "erase": 0.3},
}


def test_nothing_changes_outside_of_training() -> None:
    scenes = _scenes()
    assert np.array_equal(_changed(scenes, training=False, **EVERY), scenes)


@pytest.mark.parametrize("name", EVERY)
def test_each_amount_changes_every_picture_in_its_own_way(name: str) -> None:
    one = np.repeat(_scenes(1), 16, axis=0)
    changed = _changed(one, **{name: EVERY[name]})
    assert changed.shape == one.shape
    kinds = len(np.unique(changed.reshape(16, -1).round(5), axis=0))
    assert kinds == (2 if name == "flip" else 16)


def test_no_amount_changes_nothing() -> None:
    assert np.array_equal(_changed(_scenes()), _scenes())


def test_seed_decides_the_changes() -> None:
    scenes = _scenes()
    assert np.array_equal(_changed(scenes, **EVERY), _changed(scenes, **EVERY))
    assert not np.array_equal(_changed(scenes, **EVERY), _changed(scenes, seed=2, **EVERY))


def test_next_batch_is_changed_otherwise() -> None:
    layer, scenes = RandomChange(**NONE | {"shift": 0.3}), _scenes()
    first, second = (np.array(layer(scenes, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)


def test_flip_mirrors_about_half_of_the_pictures() -> None:
    scenes = _scenes(400)
    changed = _changed(scenes, flip=True)
    mirrored = np.isclose(changed, scenes[:, :, ::-1], atol=1e-5).all(axis=(1, 2, 3))
    same = np.isclose(changed, scenes, atol=1e-5).all(axis=(1, 2, 3))
    assert (mirrored | same).all()
    assert 150 < mirrored.sum() < 250


def test_rotation_goes_both_ways_as_far_as_it_says() -> None:
    rows, columns = _points(_changed(_cross(), rotation=30.0)).T
    degrees = np.degrees(np.arctan2(rows, columns))
    assert np.hypot(rows, columns) == pytest.approx(10, abs=0.5)
    assert -31 < degrees.min() < -27
    assert 27 < degrees.max() < 31


def test_shift_is_a_share_of_the_side() -> None:
    rows, columns = _points(_changed(_cross(), shift=0.2)).T
    assert 7 < np.abs(rows).max() < 8.3  # of 41 pixels
    assert 7 < np.abs(columns - 10).max() < 8.3


def test_zoom_keeps_the_proportions_and_stretch_does_not() -> None:
    corner = np.zeros((400, 41, 41, 1), np.float32)
    corner[:, 26, 26] = 1
    zoomed = _points(_changed(corner, zoom=0.3))
    assert np.abs(zoomed[:, 0] - zoomed[:, 1]).max() < 0.3
    assert 6 * np.exp(0.3) == pytest.approx(zoomed.max(), abs=0.6)
    stretched = _points(_changed(corner, stretch=0.4))
    assert stretched.prod(axis=1) == pytest.approx(36, abs=4)
    assert np.abs(stretched[:, 0] - stretched[:, 1]).max() > 1.5


def test_crop_magnifies_and_never_leaves_the_picture() -> None:
    slope = (
        np.zeros((400, 41, 41, 1), np.float32)
        + np.linspace(0, 1, 41, dtype=np.float32)[:, np.newaxis]
    )
    cropped = _changed(slope, crop=0.4)[..., 0]
    spans = np.ptp(cropped, axis=(1, 2))
    assert spans.min() == pytest.approx(0.6, abs=0.02)
    assert spans.max() == pytest.approx(1, abs=0.02)
    assert cropped[spans < 0.7].min() < 0.05  # at one border or the other
    assert cropped[spans < 0.7].max() > 0.95
    assert _changed(np.ones((400, 41, 41, 1), np.float32), crop=0.4)[:, 1:-1, 1:-1].min() > 0.99


def test_shear_leaves_the_row_of_the_middle() -> None:
    rows, columns = _points(_changed(_cross(), shear=20.0)).T
    assert rows == pytest.approx(0, abs=0.1)
    assert columns == pytest.approx(10, abs=0.1)
    above = np.zeros((400, 41, 41, 1), np.float32)
    above[:, 10, 20] = 1
    rows, columns = _points(_changed(above, shear=20.0)).T
    assert rows == pytest.approx(-10, abs=0.1)
    assert 3 < np.abs(columns).max() <= 10 * np.tan(np.radians(20)) + 0.1


def test_beyond_the_border_is_black_or_the_picture() -> None:
    white = np.ones((64, 9, 9, 1), np.float32)
    assert _changed(white, shift=0.4, fill="black").min() == 0
    assert _changed(white, shift=0.4, fill="reflect").min() == pytest.approx(1)


def test_colours_change_as_they_say() -> None:
    scenes = _scenes(400)
    brighter = _changed(scenes, brightness=0.2) - scenes
    assert np.ptp(brighter, axis=(1, 2, 3)).max() < 1e-6
    assert 0.18 < np.abs(brighter).max() <= 0.2 + 1e-6
    sharper = _changed(scenes, contrast=0.5)
    assert sharper.mean(axis=(1, 2, 3)) == pytest.approx(scenes.mean(axis=(1, 2, 3)), abs=1e-5)
    factors = sharper.std(axis=(1, 2, 3)) / scenes.std(axis=(1, 2, 3))
    assert (np.exp(-0.5) - 1e-4 < factors).all()
    assert (factors < np.exp(0.5) + 1e-4).all()
    richer = _changed(scenes, saturation=0.5)
    assert richer.mean(axis=3) == pytest.approx(scenes.mean(axis=3), abs=1e-5)
    assert np.array_equal(_changed(_scenes(channels=1), saturation=0.5), _scenes(channels=1))


def test_erased_is_one_grey_square_of_that_size_at_most() -> None:
    scenes = _scenes(200, size=40)
    erased = (_changed(scenes, erase=0.3) == 0.5).all(axis=3)
    rows, columns = erased.any(axis=2).sum(axis=1), erased.any(axis=1).sum(axis=1)
    assert np.array_equal(erased.sum(axis=(1, 2)), rows * columns)
    assert rows.max() == columns.max() == 12


def test_elastic_moves_by_its_share_of_the_side_on_average() -> None:
    rows, columns = _points(_changed(_cross(), elastic=0.05)).T
    # Of 41 pixels: 2.05. The point is a node of the grid in its row, and between two in its column.
    assert 1 < np.std(rows) < 2.1
    assert 1 < np.std(columns - 10) < 2.1
    assert abs(np.mean(rows)) < 0.3


@pytest.mark.parametrize("fill", ["black", "reflect"])
@pytest.mark.parametrize("channels", [1, 3])
def test_hardly_elastic_picture_is_moved_as_a_rigid_one(fill: str, channels: int) -> None:
    scenes = _scenes(channels=channels)
    moves: dict[str, Any] = {
        **{"rotation": 20.0, "shear": 10.0, "zoom": 0.2, "shift": 0.3},
        "fill": fill,
    }
    rigid = _changed(scenes, **moves)
    assert np.allclose(_changed(scenes, elastic=1e-9, **moves), rigid, atol=1e-5)
    assert not np.allclose(_changed(scenes, elastic=0.03, **moves), rigid, atol=0.1)


def test_levels_change_so_many_pictures_to_two_others() -> None:
    half = np.zeros((2000, 4, 4, 1), np.float32)
    half[:, :, 2:] = 1
    changed = _changed(half, levels=0.25)
    black, white = changed[:, 0, 0, 0], changed[:, 0, 2, 0]
    assert np.ptp(changed[:, :, :2], axis=(1, 2, 3)).max() == 0
    assert np.ptp(changed[:, :, 2:], axis=(1, 2, 3)).max() == 0
    same = (black == 0) & (white == 1)
    assert 0.72 < same.mean() < 0.78
    others = np.stack([black, white])[:, ~same]
    assert others.min() >= -1e-6
    assert others.max() <= 1 + 1e-6
    spans = others[1] - others[0]
    assert 0.2 - 1e-6 <= np.abs(spans).min() < 0.25
    assert 0.95 < np.abs(spans).max() <= 1
    assert 0.4 < (spans < 0).mean() < 0.6


def test_layer_of_a_checkpoint_without_later_changes_does_none_of_them() -> None:
    before = {name: NONE[name] for name in NONE if name not in ("elastic", "levels")}
    scenes = _scenes()
    assert np.array_equal(np.array(RandomChange(**before)(scenes, training=True)), scenes)
