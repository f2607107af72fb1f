"""What a GIF says of its first frame, before a pixel is decoded."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from convserve_imaging import gif
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.gif import read_header


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    shape = (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.fromarray(pixels).quantize(200)


def saved(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "GIF", **options)
    return file.getvalue()


def frame_at(left: int, top: int) -> bytes:
    """A picture of 71 x 53 whose only frame has 20 x 10 pixels."""
    data = bytearray(saved(noise(20, 10), comment=b"a comment"))
    data[6:10] = bytes([71, 0, 53, 0])
    at = data.index(b"\x2c\0\0\0\0\x14\0\x0a\0")
    data[at + 1 : at + 5] = bytes([left, 0, top, 0])
    return bytes(data)


STILL = saved(noise(71, 53))
SEVERAL = saved(noise(71, 53), save_all=True, append_images=[noise(71, 53, 1)], loop=0)


@pytest.mark.parametrize("data", [STILL, SEVERAL, saved(noise(71, 53), transparency=7)])
def test_header_is_that_of_the_first_frame(data: bytes) -> None:
    header = read_header(data)
    assert (header.width, header.height, header.box) == (71, 53, (0, 0, 71, 53))
    assert gif.pixels(data) == 71 * 53
    whole, first = (Image.open(io.BytesIO(each)) for each in (data, header.data))
    assert getattr(first, "n_frames", 0) == 1
    assert np.array_equal(np.asarray(whole.convert("RGBA")), np.asarray(first.convert("RGBA")))


def test_frame_may_be_smaller_than_the_picture() -> None:
    header = read_header(frame_at(3, 40))
    assert (header.width, header.height, header.box) == (71, 53, (3, 40, 23, 50))
    assert Image.open(io.BytesIO(header.data)).size == (20, 10)
    for left, top in ((52, 0), (0, 44)):
        with pytest.raises(DamagedPictureError, match="first picture is larger than the whole"):
            read_header(frame_at(left, top))


def test_every_truncation_of_the_first_frame_is_one() -> None:
    for end in (*range(6, 900), *range(900, len(STILL) - 1, 7), len(STILL) - 2):
        with pytest.raises(TruncatedPictureError, match="end before its first picture does"):
            read_header(STILL[:end])
    assert read_header(SEVERAL[:-100]).data == read_header(SEVERAL).data, "of a later frame"


def test_what_is_no_gif_is_named() -> None:
    with pytest.raises(NotAPictureError, match="not a GIF: it looks like a PNG"):
        read_header(b"\x89PNG\r\n\x1a\n")


SCREEN = b"GIF89a\x05\0\x05\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (SCREEN + b"\x3b", DamagedPictureError, "it has no picture"),
        (SCREEN + b"\x99", DamagedPictureError, "expected a picture, got 0x99"),
        (SCREEN + b"\x2c\0\0\0\0\0\0\x05\0\0", DamagedPictureError, "is empty: 0 x 5 pixels"),
        (SCREEN + b"\x21\xfe" + b"\x01a" * 65_537, TooManyPixelsError, "more than 65,536 blocks"),
    ],
)
def test_header_that_contradicts_itself_is_refused(
    data: bytes, kind: type[PictureError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        read_header(data)


def test_random_bytes_give_a_header_or_a_clear_error() -> None:
    source = random.Random(0)
    for number in range(3000):
        data = bytearray(source.choice([STILL, SEVERAL]))
        for _ in range(source.randint(1, 8)):
            data[source.randrange(6, len(data))] = source.randrange(256)
        try:
            header = read_header(bytes(data))
        except PictureError:
            continue
        assert header.width * header.height > 0, number
