"""What a WebP says of itself, before a pixel is decoded."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from convserve_imaging import webp
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.webp import read_header


def noise(width: int, height: int, channels: int) -> Image.Image:
    shape = (height, width, channels)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def saved(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def file_of(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


KINDS = {
    "lossy": saved(noise(71, 53, 3), quality=70),
    "lossy with alpha": saved(noise(71, 53, 4), quality=70),
    "lossless": saved(noise(71, 53, 3), lossless=True),
    "lossless with alpha": saved(noise(71, 53, 4), lossless=True),
    "extended": saved(noise(71, 53, 3), quality=70, exif=exif(6), icc_profile=b"profile" * 99),
    "extended lossless": saved(noise(71, 53, 4), lossless=True, exif=exif(6), xmp=b"xmp"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_header_has_the_size_and_what_makes_the_pixels(kind: str) -> None:
    data = KINDS[kind]
    header = read_header(data)
    assert (header.width, header.height) == (71, 53)
    assert header.orientation == (6 if kind.startswith("extended") else 1)
    assert webp.pixels(data) == 71 * 53
    for name in (b"EXIF", b"ICCP", b"XMP "):
        assert name not in header.data
    whole, kept = (np.asarray(Image.open(io.BytesIO(each))) for each in (data, header.data))
    assert np.array_equal(whole, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_one(kind: str) -> None:
    data = KINDS[kind]
    for end in (*range(12, 80), *range(80, len(data), 101), len(data) - 1):
        with pytest.raises(TruncatedPictureError):
            read_header(data[:end])


def test_bytes_after_the_file_are_ignored() -> None:
    data = KINDS["lossy"]
    assert read_header(data + b"more").data == read_header(data).data


def test_animation_is_refused() -> None:
    frames = [noise(71, 53, 3), noise(71, 53, 3).rotate(180)]
    data = saved(frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedPictureError, match="is an animation; save one picture of it"):
        read_header(data)


def test_what_is_no_webp_is_named() -> None:
    with pytest.raises(NotAPictureError, match="not a WebP: it looks like a GIF"):
        read_header(b"GIF89a")


FRAME = KINDS["lossy"][20:]


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (file_of(), DamagedPictureError, "expected one picture, got 0"),
        (file_of(chunk(b"EXIF", b"")), DamagedPictureError, "expected one picture, got 0"),
        (
            file_of(chunk(b"VP8 ", FRAME), chunk(b"VP8L", b"\x2f" + bytes(9))),
            DamagedPictureError,
            "expected one picture, got 2",
        ),
        (file_of(chunk(b"VP8 ", b"\0" * 9)), TruncatedPictureError, "its picture has no header"),
        (file_of(chunk(b"VP8L", b"\x2f")), TruncatedPictureError, "its picture has no header"),
        (file_of(chunk(b"VP8 ", b"\0" * 20)), DamagedPictureError, "not begin with a picture"),
        (file_of(chunk(b"VP8L", b"\0" * 20)), DamagedPictureError, "not begin with a picture"),
        (
            file_of(chunk(b"VP8 ", FRAME[:6] + b"\0\0" + FRAME[8:])),
            DamagedPictureError,
            "is empty: 0 x 53 pixels",
        ),
        (
            file_of(chunk(b"VP8X", bytes(10)), chunk(b"VP8 ", FRAME)),
            DamagedPictureError,
            "not of the size of its canvas",
        ),
        (file_of(*[chunk(b"none", b"")] * 1024), TooManyPixelsError, "more than 1,024 chunks"),
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
        data = bytearray(source.choice(list(KINDS.values())))
        for _ in range(source.randint(1, 8)):
            data[source.randrange(12, 60)] = source.randrange(256)
        try:
            header = read_header(bytes(data))
        except PictureError:
            continue
        assert header.width * header.height > 0, number
        webp.pixels(bytes(data))
