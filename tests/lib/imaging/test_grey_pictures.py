"""Pictures of any kind become grey and small without being widened whole."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve_imaging import grey_pictures, jpeg_pixels
from convserve_imaging.errors import TooManyPixelsError, TruncatedPictureError
from convserve_imaging.grey_pictures import LONGEST_SIDE, grey_picture
from tests.pngs import chunk, flat_png, header

#: Memory that making grey takes beside the decoded picture, at most, whatever its size.
SLACK = 12 << 20


def _scene(width: int, height: int) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


def _saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_small_picture_is_its_luma() -> None:
    picture = _scene(LONGEST_SIDE, 700)
    grey = grey_picture(_saved(picture))
    assert grey.dtype == np.uint8
    assert np.array_equal(grey, np.asarray(picture.convert("L")))


@pytest.mark.parametrize("size", [(1025, 900), (3000, 1999), (40, 5000), (5000, 1), (2048, 2048)])
def test_tiles_give_what_reducing_the_whole_picture_gives(size: tuple[int, int]) -> None:
    picture = _scene(*size)
    scale = LONGEST_SIDE / max(size)
    small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    whole = np.asarray(picture.convert("L").resize(small, Image.Resampling.BOX), dtype=int)
    grey = grey_picture(_saved(picture))
    assert grey.shape == whole.shape
    assert np.abs(grey - whole).max() <= 1


def test_jpeg_is_decoded_at_a_smaller_scale() -> None:
    picture = _scene(4100, 3000)
    grey = grey_picture(_saved(picture, "JPEG", quality=95))
    expected = np.asarray(picture.convert("L").resize((1024, 749), Image.Resampling.BOX), dtype=int)
    assert grey.shape == (749, 1024)
    assert np.abs(grey - expected).mean() < 2
    # At a quarter of its size, 1025 x 750, each pixel in one byte, and Pillow's copy.
    needed = 2 * 1538 * 1125
    assert grey_picture(_saved(picture, "JPEG"), max_decoder_bytes=needed).any()
    with pytest.raises(TooManyPixelsError, match="the JPEG has 4100 x 3000 pixels: decoding takes"):
        grey_picture(_saved(picture, "JPEG"), max_decoder_bytes=needed // 3)


def test_client_without_the_servers_decoder_reads_jpegs(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _saved(_scene(4100, 3000), "JPEG")
    expected = grey_picture(data).astype(int)
    monkeypatch.setattr(jpeg_pixels, "simplejpeg", None)
    assert np.abs(grey_picture(data) - expected).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = grey_picture(_saved(_scene(300, 200), kind, exif=exif))
    turned = np.asarray(_scene(300, 200).convert("L").rotate(-90, expand=True), dtype=int)
    assert grey.shape == (300, 200)
    assert np.abs(grey - turned).mean() < 2


@pytest.mark.parametrize("ink", [0, 255])
def test_what_is_transparent_is_the_paper_on_which_the_rest_is_seen(ink: int) -> None:
    drawn = np.zeros((60, 50, 2), np.uint8)
    drawn[20:40, 10:30] = (ink, 255)
    grey = grey_picture(_saved(Image.fromarray(drawn, "LA")))
    assert grey[30, 20] == ink
    assert grey[0, 0] == 255 - ink


def test_sixteen_bits_are_stretched() -> None:
    levels = np.full((60, 2000), 3000, np.uint16)
    levels[:, 1000:] = 5000
    grey = grey_picture(_saved(Image.fromarray(levels)))
    assert set(grey.ravel().tolist()) >= {0, 255}
    assert grey.shape == (31, 1024)


#: Depth, colour type, transparency, bytes a pixel that Pillow decodes to.
KINDS = [(1, 0, b"", 1), (8, 0, b"", 1), (8, 0, b"\0\x55", 1), (16, 0, b"", 2), (8, 2, b"", 4)]
KINDS += [(8, 2, b"\0\x55" * 3, 4), (16, 2, b"", 4), (1, 3, b"", 1), (8, 3, b"\0\1", 1)]
KINDS += [(8, 4, b"", 4), (16, 4, b"", 4), (8, 6, b"", 4), (16, 6, b"", 4)]

#: Prints by how many bytes the process grew at most while it decoded each file, with its limit.
PROBE = """
import sys
from convserve_imaging.grey_pictures import grey_picture

def highest():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

for line in sys.stdin:
    name, limit = line.split()
    with open(name, "rb") as file:
        data = file.read()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = highest()
    grey_picture(data, ("JPEG", "PNG"), 1 << 30, int(limit))
    print(highest() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
def test_peak_of_memory_is_what_was_given(tmp_path: Path) -> None:
    width, height = 2400, 1600
    lines = []
    for number, (depth, colours, key, each) in enumerate(KINDS * 2):
        data = flat_png(
            width, height, depth, colours, interlace=number >= len(KINDS), transparent=key
        )
        (tmp_path / f"{number}.png").write_bytes(data)
        needed = width * height * each
        lines.append(f"{tmp_path}/{number}.png {needed}")
        with pytest.raises(TooManyPixelsError) as caught:
            grey_picture(data, max_decoder_bytes=needed - 1)
        assert str(caught.value) == (
            f"the PNG has {width} x {height} pixels: decoding takes {-(-needed >> 20)} MiB of "
            f"memory, at most {(needed - 1) >> 20} are given"
        )
    # The first one also loads what decoding needs.
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        # What is freed goes back at once: nothing is hidden in what an earlier file has left.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 17)},
        input="\n".join([lines[0], *lines]),
        capture_output=True,
        text=True,
        check=True,
    )
    grown = list(map(int, done.stdout.split()))[1:]
    for kind, peak in zip(KINDS * 2, grown, strict=True):
        needed = width * height * kind[-1]
        assert needed / 2 < peak < needed + SLACK, kind


def test_long_thin_pictures_take_no_more() -> None:
    """One row of the result is then many rows of the picture."""
    sizes = list(grey_pictures._tiles((65_000, 600), (1024, 9)))  # noqa: SLF001
    assert max((box[2] - box[0]) * (box[3] - box[1]) for _, box, _ in sizes) < 600 * 600


def test_png_that_cannot_hold_its_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    data = header(6000, 6000) + chunk(b"IDAT", bytes(30_000)) + chunk(b"IEND")
    with pytest.raises(TruncatedPictureError, match="bytes cannot hold its 6000 x 6000 pixels"):
        grey_picture(data)
