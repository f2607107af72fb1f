import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from convserve_imaging import pixels
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.luma import luma

HEIGHT, WIDTH = 12, 16
GENERATOR = np.random.default_rng(5)
RGB = GENERATOR.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREY = GENERATOR.integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def _file(image: Image.Image, kind: str = "PNG") -> bytes:
    written = io.BytesIO()
    image.save(written, kind)
    return written.getvalue()


def _decoded(image: Image.Image, channels: int) -> npt.NDArray[np.uint8]:
    return pixels.decode(_file(image), HEIGHT, WIDTH, channels)


def test_luma_is_that_of_bt_601() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert luma(colours).tolist() == [[[76], [150], [29], [255]]]
    assert np.array_equal(luma(np.repeat(GREY[..., None], 3, axis=2))[..., 0], GREY)
    of_pillow = np.asarray(Image.fromarray(RGB).convert("L"), np.int16)
    assert np.abs(luma(RGB)[..., 0] - of_pillow).max() <= 1


def test_pixels_are_those_of_the_file() -> None:
    assert np.array_equal(_decoded(Image.fromarray(RGB), 3), RGB)
    assert np.array_equal(_decoded(Image.fromarray(GREY), 1)[..., 0], GREY)
    assert np.array_equal(_decoded(Image.fromarray(RGB), 1), luma(RGB))
    assert np.array_equal(_decoded(Image.fromarray(GREY), 3), np.repeat(GREY[..., None], 3, 2))


def test_opaque_picture_with_an_alpha_channel_is_taken() -> None:
    drawn = np.dstack([RGB, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    assert np.array_equal(_decoded(Image.fromarray(drawn), 3), RGB)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (
            _file(Image.new("L", (28, 30))),
            UnsupportedPictureError,
            "the picture has 30 rows and 28 columns; expected 12 rows and 16 columns, since pixels "
            "are used unchanged",
        ),
        (_file(Image.new("L", (HEIGHT, WIDTH))), UnsupportedPictureError, "has 16 rows and 12 col"),
        (_file(Image.new("RGBA", (16, 12))), UnsupportedPictureError, "transparent parts"),
        (_file(Image.new("I;16", (16, 12))), UnsupportedPictureError, "more than 8 bits"),
        (_file(Image.fromarray(RGB))[:90], TruncatedPictureError, "the PNG is truncated"),
        (_file(Image.fromarray(RGB)).replace(b"IDATx", b"IDATy"), DamagedPictureError, "damaged"),
        (_file(Image.fromarray(RGB), "GIF"), NotAPictureError, "it looks like a GIF"),
        (b"<html>", NotAPictureError, "not a picture: it looks like"),
    ],
)
def test_other_picture_is_refused_in_one_line(
    data: bytes, kind: type[PictureError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        pixels.decode(data, HEIGHT, WIDTH, 1, formats=("JPEG", "PNG"))
    assert "\n" not in str(caught.value)


def test_picture_of_another_size_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    data = _file(Image.new("L", (5000, 5000)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(UnsupportedPictureError, match="5000 rows"):
        pixels.decode(data, HEIGHT, WIDTH, 1)
