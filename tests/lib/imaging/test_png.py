"""What a PNG says of itself, before a pixel is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from convserve_imaging import png
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.png import read_header
from tests.pngs import chunk, flat_png
from tests.pngs import header as start

END = chunk(b"IEND")


def saved(mode: str, size: tuple[int, int] = (70, 50), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("depth", "colours", "each"),
    [(1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 2), (8, 2, 4), (16, 2, 4), (1, 3, 1)]
    + [(8, 3, 1), (8, 4, 4), (16, 4, 4), (8, 6, 4), (16, 6, 4)],
)
def test_size_and_memory_are_those_of_the_decoded_picture(
    depth: int, colours: int, each: int
) -> None:
    data = flat_png(70, 50, depth, colours)
    header = read_header(data)
    assert (header.width, header.height, header.orientation) == (70, 50, 1)
    assert header.decoded_bytes == 70 * 50 * each
    decoded = Image.open(io.BytesIO(data))
    held = {"1": 1, "L": 1, "P": 1, "I;16": 2, "RGB": 4, "LA": 4, "RGBA": 4}[decoded.mode]
    assert held == each
    assert header.data == data


def test_pixels_in_many_chunks_become_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, at)
    stream = data[at + 8 : at + 8 + length]
    parts = [chunk(b"IDAT", stream[start : start + 7]) for start in range(0, len(stream), 7)]
    split = data[:at] + b"".join((*parts, chunk(b"IDAT"))) + END
    assert read_header(split).data == data


def test_text_profiles_and_frames_of_animations_are_left_out() -> None:
    """Each of them would be decompressed or kept, however large it becomes."""
    bomb = zlib.compress(bytes(50 << 20))
    plain = flat_png(70, 50, transparent=b"\0\x55")
    at = plain.index(b"IDAT") - 4
    needless = (
        chunk(b"iCCP", b"profile\0\0" + bomb)
        + chunk(b"zTXt", b"key\0\0" + bomb)
        + chunk(b"iTXt", b"key\0\1\0\0\0" + bomb)
        + chunk(b"acTL", struct.pack(">II", 1000, 0))
        + chunk(b"prVt", bytes(3000))
    )
    frame = chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(100)))
    data = plain[:at] + needless + plain[at:-12] + frame * 50 + needless + END
    assert read_header(data).data == plain


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"prVt", b"fdAT"])
def test_chunks_are_bounded(kind: bytes) -> None:
    plain = flat_png(70, 50)
    at = plain.index(b"IDAT") - 4
    others = 3  # IHDR, the pixels, IEND
    most = plain[:at] + chunk(kind) * (png.MAX_CHUNKS - others) + plain[at:]
    assert read_header(most).data == plain
    more = plain[:at] + chunk(kind) * (png.MAX_CHUNKS - others + 1) + plain[at:]
    with pytest.raises(TooManyPixelsError, match="has more than 16,384 chunks"):
        read_header(more)
    # What comes after the bound is not looked at: no work is done on it.
    with pytest.raises(TooManyPixelsError, match="has more than 16,384 chunks"):
        read_header(plain[:at] + chunk(kind) * png.MAX_CHUNKS + b"\xff" * 4)


def test_orientation_is_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_header(saved("RGB", exif=exif)).orientation == 6


def test_size_that_the_file_cannot_hold_is_refused() -> None:
    # Deflate makes 1,032 bytes of one at best.
    assert read_header(start(1032, 10) + chunk(b"IDAT", bytes(10)) + END).least_bytes == 10
    whole = flat_png(5000, 5000, 1)
    assert read_header(whole).least_bytes <= len(whole)


def test_every_cut_is_truncated() -> None:
    data = saved("RGB", exif=b"Exif\0\0MM\0*", dpi=(72, 72))
    for end in range(len(png.SIGNATURE), len(data)):
        with pytest.raises(TruncatedPictureError, match="is truncated"):
            read_header(data[:end])
    assert read_header(data + b"trailing").width == 70


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x89PNG\r\n\x1a\n" + chunk(b"gAMA", bytes(4)) + END, "does not begin with IHDR"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(12)) + END, "does not begin with IHDR"),
        (start(10, 10, depth=3) + END, "no colour type 0 of 3 bits"),
        (start(10, 10, colours=5) + END, "no colour type 5 of 8 bits"),
        (start(0, 10) + END, "empty: 0 x 10 pixels"),
    ],
)
def test_header_that_makes_no_sense_is_damaged(data: bytes, says: str) -> None:
    with pytest.raises(DamagedPictureError, match=says):
        read_header(data)


def test_other_file_is_named() -> None:
    with pytest.raises(NotAPictureError, match="not a PNG: it looks like a GIF"):
        read_header(b"GIF89a")


def test_random_bytes_give_a_header_or_a_clear_error() -> None:
    random = np.random.default_rng(0)
    seed = saved("RGBA", exif=b"Exif\0\0MM\0*")
    refused = 0
    for _ in range(2000):
        data = bytearray(seed)
        for _ in range(random.integers(1, 4)):
            data[random.integers(8, len(data))] = random.integers(256)
        try:
            read_header(bytes(data))
        except PictureError:
            refused += 1
    assert refused > 300
