"""PNG, WebP and GIF become pixels as photographs do, and JPEG exactly so."""

import contextlib
import hashlib
import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from convserve_imaging import exif, photos, pictures
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.picture_cost import decoding_s
from convserve_imaging.pictures import decode
from tests.jpegs import jpeg_of
from tests.lib.imaging.test_gif import frame_at
from tests.pngs import flat_png

Pixels = npt.NDArray[np.uint8]
FORMATS = ("PNG", "WEBP", "GIF")


def waves(height: int, width: int, channels: int = 3) -> Pixels:
    """A smooth picture, the same everywhere: integers alone."""
    rows, columns = np.mgrid[:height, :width]
    levels = [rows * 5 + columns, rows + columns * 3, rows * 2 + columns * 2, columns * 4]
    triangles = [np.abs(each % 510 - 255) for each in levels[:channels]]
    return np.stack(triangles, -1).astype(np.uint8)


def saved(picture: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}) | options)
    return file.getvalue()


def distance(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_gives_the_pixels_of_photographs(channels: int) -> None:
    data = jpeg_of("red", (517, 389))
    expected = photos.decode(data, 40, 60, channels=channels)
    assert np.array_equal(decode(data, 40, 60, channels=channels), expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_pictures_of_the_size_that_is_asked_for_are_unchanged(kind: str) -> None:
    pixels = waves(53, 71)
    assert np.array_equal(decode(saved(pixels, kind), 53, 71), pixels)
    rgb = np.repeat(waves(53, 71, 1), 3, axis=2)
    assert np.array_equal(decode(saved(rgb[..., 0], "PNG"), 53, 71), rgb)


def test_large_ones_are_reduced_without_aliasing() -> None:
    # Means of 8 x 8, then convolution, are near the convolution of the whole.
    pixels = waves(8 * 53 + 5, 8 * 71 + 3)
    direct = np.asarray(Image.fromarray(pixels).resize((71, 53), Image.Resampling.BILINEAR))
    for kind in ("PNG", "WEBP"):
        assert distance(decode(saved(pixels, kind), 53, 71), direct) <= 12
    checked = (np.indices((530, 710)).sum(0) % 2 * 255).astype(np.uint8)
    assert set(np.unique(decode(saved(checked, "PNG"), 53, 71))) <= {127, 128}


#: Of the pixels; nets are trained on these, so another digest needs a new version of the method.
DIGESTS = {
    "PNG": "8f70d700b4c7b051",
    "PNG RGBA": "eccee5d3e278b965",
    "PNG P": "2d954072483293af",
    "PNG I;16": "2d954072483293af",
    "PNG 1": "55a0bdbb6a81469c",
    "WEBP": "8f70d700b4c7b051",
    "WEBP RGBA": "eccee5d3e278b965",
    "GIF": "2d954072483293af",
}


def file_of(kind: str) -> bytes:
    """A picture of 301 x 203, of a format and a mode."""
    name, _, mode = kind.partition(" ")
    if mode == "RGBA":
        return saved(waves(203, 301, 4), name)
    if mode == "I;16":
        deep = waves(203, 301, 1)[..., 0].astype(np.uint16) * 257
        return saved(Image.fromarray(deep), name)
    if mode == "1":
        return saved(Image.fromarray(waves(203, 301, 1)[..., 0]).point(lambda x: x > 99, "1"), name)
    if mode == "P" or name == "GIF":
        picture = Image.fromarray(waves(203, 301, 1)[..., 0])
        return saved(picture.convert("P"), name)
    return saved(waves(203, 301), name)


@pytest.mark.parametrize("kind", DIGESTS)
def test_pixels_are_those_of_this_version(kind: str) -> None:
    pixels = decode(file_of(kind), 40, 64)
    assert pixels.shape == (40, 64, 3)
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == DIGESTS[kind]


def test_sixteen_bits_are_those_of_eight() -> None:
    deep = waves(60, 80, 1)[..., 0].astype(np.uint16) * 257
    eight = waves(60, 80, 1)[..., 0]
    assert np.array_equal(
        decode(saved(Image.fromarray(deep), "PNG"), 30, 40), decode(saved(eight, "PNG"), 30, 40)
    )
    for colours in (2, 4, 6):
        assert (decode(flat_png(60, 40, 16, colours, byte=0xFF), 20, 30) == 255).all()
    with pytest.raises(UnsupportedPictureError, match="16 bits of grey and a transparent level"):
        decode(flat_png(60, 40, 16, 0, transparent=b"\0\0"), 20, 30)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_is_white(kind: str) -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, 20:, 3] = 255
    found = decode(saved(pixels, kind, **({"exact": True} if kind == "WEBP" else {})), 40, 40)
    assert (found[:, :20] == 255).all()
    assert (found[:, 20:] == 0).all()
    half = np.full((40, 40, 4), (0, 0, 0, 128), np.uint8)
    assert set(np.unique(decode(saved(half, "PNG"), 8, 8))) == {127}


def test_transparent_colour_of_a_palette_is_white() -> None:
    picture = Image.new("P", (40, 40), 0)
    picture.putpalette([9, 9, 9, 200, 0, 0])
    picture.paste(1, (0, 0, 20, 40))
    for kind in ("PNG", "GIF"):
        found = decode(saved(picture, kind, transparency=0), 40, 40)
        assert (found[:, :20] == (200, 0, 0)).all()
        assert (found[:, 20:] == 255).all()


def test_first_frame_of_a_gif_is_the_picture() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data, 10, 10) == (255, 0, 0)).all()


def test_what_a_frame_does_not_cover_is_white() -> None:
    found = decode(frame_at(3, 40), 53, 71)
    covered = np.zeros((53, 71), bool)
    covered[40:50, 3:23] = True
    assert (found[~covered] == 255).all()
    assert not (found[covered] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    block = Image.Exif()
    block[0x0112] = orientation
    pixels = waves(60, 80)
    upright = exif.upright(pixels, orientation)
    found = decode(saved(pixels, kind, exif=block.tobytes()), *upright.shape[:2])
    assert np.array_equal(found, upright)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_missing_or_damaged_is_refused_or_gives_a_picture(kind: str) -> None:
    source = random.Random(0)
    data = saved(
        Image.fromarray(waves(60, 80)).convert("P") if kind == "GIF" else waves(60, 80), kind
    )
    for end in range(12, len(data) - 2, 11):
        with pytest.raises(TruncatedPictureError):
            decode(data[:end], 20, 20)
    for _ in range(400):
        spoilt = bytearray(data)
        for _ in range(source.randint(1, 6)):
            spoilt[source.randrange(12, len(data))] = source.randrange(256)
        with contextlib.suppress(PictureError):
            assert decode(bytes(spoilt), 20, 20).shape == (20, 20, 3)


def test_gif_whose_codes_end_early_is_damaged() -> None:
    # Clear, end: no pixel of 5 x 5.
    data = b"GIF89a\x05\0\x05\0\x80\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0\x05\0\x05\0\0"
    with pytest.raises(DamagedPictureError):
        decode(data + b"\x02\x01\x2c\x00\x3b", 5, 5)


def test_other_formats_are_refused_by_their_names() -> None:
    with pytest.raises(NotAPictureError, match="looks like a BMP"):
        decode(saved(waves(20, 20), "BMP"), 20, 20)
    with pytest.raises(NotAPictureError, match="looks like a TIFF"):
        decode(saved(waves(20, 20), "TIFF"), 20, 20)


def lossless_of(width: int, height: int) -> bytes:
    """A WebP of one colour: 34 bytes, whatever its size."""
    return saved(np.zeros((height, width, 3), np.uint8), "WEBP", method=0)


def test_bombs_are_refused_before_anything_is_decoded() -> None:
    for data in (
        lossless_of(4000, 3000),
        b"GIF89a" + b"\xff" * 4 + b"\0\0\0\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x01\x2c\x00\x3b",
    ):
        with pytest.raises(TooManyPixelsError):
            decode(data, 20, 20, max_pixels=1 << 33, max_decoder_bytes=1 << 40)
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    for kind in FORMATS:
        data = saved(Image.fromarray(noise).quantize(99) if kind == "GIF" else noise, kind)
        with pytest.raises(TooManyPixelsError, match="has 800 x 600 pixels; expected at most"):
            decode(data, 20, 20, max_pixels=479_999)
        least = {"PNG": 4, "WEBP": 20, "GIF": 1}[kind] * 480_000
        with pytest.raises(TooManyPixelsError, match="decoding takes"):
            decode(data, 20, 20, max_decoder_bytes=least)
        assert decode(data, 20, 20, max_decoder_bytes=least + 9 * 40 * 40 + 1200).any()


#: Prints what decoding a file has added to the memory, in bytes.
PEAK = """
import sys
from pathlib import Path
from convserve_imaging import pictures

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

small, large = (Path(name).read_bytes() for name in sys.argv[1:])
pictures.decode(small, 20, 20)
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
pictures.decode(large, 20, 20, max_decoder_bytes=1 << 40)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="not Linux")
@pytest.mark.parametrize(("kind", "least"), [("PNG", 4), ("WEBP", 20), ("GIF", 1)])
@pytest.mark.parametrize("alpha", [False, True])
def test_memory_is_what_the_header_says(kind: str, least: int, alpha: bool, tmp_path: Path) -> None:
    picture = Image.fromarray(waves(1500, 2000, 4 if alpha else 3))
    if kind == "GIF":
        picture = picture.convert("RGB").convert("P")
    for name, one in (("small", picture.crop((0, 0, 50, 50))), ("large", picture)):
        (tmp_path / name).write_bytes(saved(one, kind))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "large")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    data = 3 * (tmp_path / "large").stat().st_size  # copies of the file
    assert peak <= least * 1500 * 2000 + data + (6 << 20)


def test_cost_grows_with_pixels_and_bytes() -> None:
    assert decoding_s(b"RIFF\0\0\0\0WEBP") < 1e-4
    for kind in FORMATS:
        small, large = (
            saved(
                Image.fromarray(waves(side, side)).convert("P")
                if kind == "GIF"
                else waves(side, side),
                kind,
            )
            for side in (64, 640)
        )
        assert decoding_s(large) > 20 * (decoding_s(small) - 30e-6)
        assert decoding_s(small) > 30e-6


def test_formats_are_those_of_the_documentation() -> None:
    assert pictures.FORMATS == FORMATS
