import numpy as np
import numpy.typing as npt
import pytest

from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, IMAGE_KIND_PHOTO, IMAGE_KIND_PIXELS
from convserve_trainer.datasets.pictures import ArrayPictures
from convserve_trainer.evaluation import corruptions

DIGITS = corruptions.changes(IMAGE_KIND_DIGITS, (28, 28))
PHOTOS = corruptions.changes(IMAGE_KIND_PHOTO, (64, 64))


def _scenes(count: int = 8, size: int = 28, channels: int = 1) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)


def test_digits_have_five_changes_and_other_small_pictures_too() -> None:
    names = ["shifted by 4 pixels", "turned by 20 degrees", "inverted", "low contrast"]
    assert list(DIGITS) == [*names, "grey ground"]
    assert list(corruptions.changes(IMAGE_KIND_PIXELS, (12, 16))) == [
        *("shifted by 2 pixels", *names[1:], "grey ground")
    ]


@pytest.mark.parametrize("name", [*DIGITS, *PHOTOS])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_change_keeps_shape_type_and_the_pictures_themselves(name: str, channels: int) -> None:
    scenes = _scenes(channels=channels)
    before = scenes.copy()
    change = (DIGITS | PHOTOS)[name]
    changed = change(scenes)
    assert changed.shape == scenes.shape
    assert changed.dtype == np.uint8
    assert all(not np.array_equal(one, other) for one, other in zip(changed, scenes, strict=True))
    assert np.array_equal(scenes, before)
    assert np.array_equal(change(scenes), changed)


def test_shift_goes_four_ways_in_turn() -> None:
    scenes = _scenes()
    right, left, down, up, again, *_ = DIGITS["shifted by 4 pixels"](scenes)
    assert np.array_equal(right[:, 4:], scenes[0][:, :-4])
    assert np.array_equal(left[:, :-4], scenes[1][:, 4:])
    assert np.array_equal(down[4:], scenes[2][:-4])
    assert np.array_equal(up[:-4], scenes[3][4:])
    assert np.array_equal(again[:, 4:], scenes[4][:, :-4])
    black = (right[:, :4], left[:, -4:], down[:4], up[-4:])
    assert not any(part.any() for part in black)


def test_turn_goes_both_ways_by_twenty_degrees() -> None:
    scenes = np.zeros((2, 41, 41, 1), np.uint8)
    scenes[:, 20, 30] = 255
    for turned, ways in zip(DIGITS["turned by 20 degrees"](scenes), (-1, 1), strict=True):
        weights = turned[..., 0] / turned.sum()
        row, column = ((weights * grid).sum() - 20 for grid in np.indices((41, 41)))
        assert np.degrees(np.arctan2(row, column)) == pytest.approx(ways * 20, abs=1)


def test_levels_are_as_they_say() -> None:
    levels = np.array([0, 100, 255], np.uint8).reshape(1, 1, 3, 1)
    found = {
        name: DIGITS[name](levels).ravel().tolist()
        for name in ("inverted", "low contrast", "grey ground")
    }
    assert found == {
        "inverted": [255, 155, 0],
        "low contrast": [96, 121, 159],
        "grey ground": [128, 178, 255],
    }
    assert PHOTOS["brighter"](levels).ravel().tolist() == [76, 176, 255]
    assert PHOTOS["darker"](levels).ravel().tolist() == [0, 24, 179]


def test_blur_smooths_and_noise_roughens() -> None:
    grey = np.full((1, 64, 64, 3), 128, np.uint8)
    assert np.array_equal(PHOTOS["blurred"](grey), grey)
    assert PHOTOS["noise"](grey).std() == pytest.approx(25, abs=1)
    scenes = _scenes(1, 64, 3)
    assert PHOTOS["blurred"](scenes).std() < scenes.std() / 2


def test_net_is_asked_about_every_changed_picture_of_the_last_batch_too() -> None:
    """A net that knows light pictures, 1, from dark ones, 0."""
    labels = np.arange(70) % 2
    pixels = np.where(labels[:, None, None, None] == 1, 255, 0) * np.ones((1, 8, 8, 1))
    pictures = ArrayPictures(pixels.astype(np.uint8), labels)
    batches = []

    def net(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        batches.append(len(pixels))
        light = (pixels.mean(axis=(1, 2, 3)) > 127).astype(np.float32)
        return np.stack([1 - light, light], axis=1)

    found = {each.change: each for each in corruptions.corrupted(net, pictures, IMAGE_KIND_DIGITS)}
    assert batches == [50] * 5 + [20] * 5
    assert {each.pictures for each in found.values()} == {70}
    assert found["inverted"].correct == 0
    assert found["low contrast"].correct == 70
    assert found["grey ground"].correct == 35  # every one is light
    low, high = found["grey ground"].interval
    assert low < found["grey ground"].accuracy == 0.5 < high
    assert found["inverted"].as_dict()["change"] == "inverted"
