import numpy as np
import pytest

from convserve import InvalidRequest
from convserve.pixels import as_batch


@pytest.mark.parametrize(
    ("shape", "batch"),
    [
        ((28, 28), (1, 28, 28, 1)),
        ((28, 28, 1), (1, 28, 28, 1)),
        ((150, 100, 3), (1, 150, 100, 3)),
        ((1, 28, 28), (1, 28, 28, 1)),
        ((3, 28, 28), (3, 28, 28, 1)),
        ((64, 28, 28), (64, 28, 28, 1)),
        ((64, 28, 28, 1), (64, 28, 28, 1)),
        ((2, 150, 100, 3), (2, 150, 100, 3)),
    ],
)
def test_each_shape_becomes_a_batch(shape: tuple[int, ...], batch: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)
    assert as_batch(pixels).shape == batch
    assert as_batch(pixels).tobytes() == pixels.tobytes()


def test_array_is_not_copied() -> None:
    pixels = np.zeros((64, 28, 28), np.uint8)
    assert np.shares_memory(as_batch(pixels), pixels)


def test_list_of_images_is_accepted() -> None:
    digit = np.arange(784).astype(np.uint8).reshape(28, 28)
    assert as_batch([digit, digit, digit]).shape == (3, 28, 28, 1)


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        (
            "float32",
            r'pass \(pixels \* 255\)\.round\(\)\.astype\("uint8"\) if .* are 0 to 1,',
        ),
        ("float64", r"if they are 0 to 255"),
        ("bool", r'pass pixels\.astype\("uint8"\) \* 255'),
        ("int64", r'pass pixels\.astype\("uint8"\) if the values are 0 to 255'),
        ("uint16", r"if the values are 0 to 255"),
        ("complex64", r""),
        ("object", r""),
    ],
)
def test_other_dtype_is_refused_with_what_to_pass(dtype: str, advice: str) -> None:
    with pytest.raises(
        InvalidRequest, match=rf"^pixels: expected uint8 .*, got {dtype}.*{advice}"
    ) as caught:
        as_batch(np.zeros((28, 28), dtype))
    assert caught.value.violations[0].field == "pixels"


def test_advice_for_floats_gives_the_pixels_back() -> None:
    pixels = np.arange(256).astype(np.uint8).reshape(16, 16)
    scaled = pixels.astype("float32") / 255
    assert np.array_equal((scaled * 255).round().astype("uint8"), pixels)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((0, 28, 28), r"expected one image at least, .*, got nothing, of shape \[0, 28, 28\]"),
        ((28, 0), r"expected one image at least, .*, got nothing, of shape \[28, 0\]"),
        ((), r"expected uint8 \[H, W\], .*, got shape \[\]"),
        ((784,), r"got shape \[784\]"),
        ((2, 28, 28, 2), r"got shape \[2, 28, 28, 2\]"),
        ((1, 2, 28, 28, 1), r"got shape \[1, 2, 28, 28, 1\]"),
    ],
)
def test_other_shape_is_refused_with_what_it_was(shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        as_batch(np.zeros(shape, np.uint8))


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="different shapes"):
        as_batch([np.zeros((28, 28), np.uint8), np.zeros((20, 28), np.uint8)])
