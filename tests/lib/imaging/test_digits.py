import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from convserve_imaging.digits import centre
from convserve_imaging.errors import BlankPictureError, PictureError, TooManyPixelsError

Pixels = npt.NDArray[np.uint8]

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CONVSERVE_TEST_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def test_digits() -> Pixels:
    """Ten of each digit: uint8 [100, 28, 28]."""
    folder = DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST in {folder}; CONVSERVE_TEST_DATA names the folder above it")
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return np.concatenate([images[labels == digit][:10] for digit in range(10)])


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _drawing(mode: str = "L", paper: object = 255, ink: object = 0) -> Image.Image:
    """A seven, off centre, on a canvas that is not square."""
    picture = Image.new(mode, (300, 200), paper)  # type: ignore[arg-type]
    draw = ImageDraw.Draw(picture)
    draw.line([(40, 30), (110, 30), (70, 150)], fill=ink, width=12)  # type: ignore[arg-type]
    return picture


def _on_canvas(digit: Pixels, smooth: Image.Resampling, light: bool) -> bytes:
    large = Image.fromarray(digit).resize((28 * 9, 28 * 9), smooth)
    canvas = Image.new("L", (560, 400), 0)
    canvas.paste(large, (290, 20))
    return _png(Image.eval(canvas, lambda grey: 255 - grey) if light else canvas)


def _distance(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(float) - other).mean())


# What comes back differs by 0.1 levels on average if the enlargement kept square pixels and by 7 if
# it smoothed; a digit that is one pixel off by 20, one that is not inverted by 200.
@pytest.mark.parametrize("light", [False, True], ids=["dark ground", "light ground"])
@pytest.mark.parametrize(
    ("smooth", "mean", "worst"),
    [(Image.Resampling.NEAREST, 0.5, 8), (Image.Resampling.BICUBIC, 9, 26)],
)
def test_enlarged_digit_off_centre_comes_back(
    test_digits: Pixels, smooth: Image.Resampling, mean: float, worst: float, light: bool
) -> None:
    distances = []
    for digit in test_digits:
        found = centre(_on_canvas(digit, smooth, light))
        assert found.shape == (28, 28, 1)
        assert found.dtype == np.uint8
        distances.append(_distance(found[:, :, 0], digit))
    assert np.mean(distances) < mean
    assert max(distances) < worst


def test_digit_of_mnist_itself_is_unchanged(test_digits: Pixels) -> None:
    distances = [_distance(centre(Image.fromarray(digit))[:, :, 0], digit) for digit in test_digits]
    assert np.mean(distances) < 0.5


def test_digit_keeps_its_aspect_ratio_and_is_centred_by_mass() -> None:
    picture = Image.new("L", (400, 300), 0)
    ImageDraw.Draw(picture).rectangle((300, 100, 349, 299), fill=255)  # 50 wide, 200 high
    found = centre(picture)[:, :, 0]
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (len(rows), len(columns)) == (20, 5)
    assert columns.tolist() == [12, 13, 14, 15, 16]
    assert rows[0] in (4, 5)
    assert set(found.ravel().tolist()) == {0, 255}


def test_lopsided_mass_moves_the_box_not_the_mass() -> None:
    picture = Image.new("L", (200, 200), 0)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 199, 39), fill=255)  # a heavy bar on top
    draw.rectangle((70, 40, 129, 199), fill=255)  # a thinner leg
    found = centre(picture)[:, :, 0].astype(float)
    mass = found.sum()
    assert abs((found.sum(axis=1) * np.arange(28)).sum() / mass - 14) <= 0.5
    assert abs((found.sum(axis=0) * np.arange(28)).sum() / mass - 14) <= 0.5
    rows = np.flatnonzero(found.any(axis=1))
    assert rows[0] > 4, "a box that is centred by its edges begins at row 4"


def test_scaling_is_anti_aliased() -> None:
    levels = np.unique(centre(_drawing()))
    assert levels[0] == 0
    assert levels[-1] == 255
    assert len(levels) > 10


REFERENCE = _drawing()


@pytest.mark.parametrize(
    "picture",
    [
        _drawing("L", paper=0, ink=255),
        _drawing("1", paper=1, ink=0),
        _drawing("RGB", paper="white", ink="black"),
        _drawing("RGB", paper="black", ink="white"),
        _drawing("RGBA", paper=(0, 0, 0, 0), ink=(0, 0, 0, 255)),
        _drawing("RGBA", paper=(255, 255, 255, 0), ink=(255, 255, 255, 255)),
        _drawing("RGBA", paper=(0, 0, 0, 255), ink=(255, 255, 255, 255)),
        _drawing("LA", paper=(0, 0), ink=(0, 255)),
        _drawing("CMYK", paper=(0, 0, 0, 0), ink=(0, 0, 0, 255)),
        _drawing("I;16", paper=65_000, ink=1_000),
        _drawing("I", paper=1_000, ink=65_000),
        _drawing("F", paper=0.0, ink=1.0),
        _drawing("RGB", paper="white", ink="black").quantize(4),
    ],
    ids=lambda picture: picture.mode,
)
def test_mode_of_the_picture_does_not_matter(picture: Image.Image) -> None:
    assert _distance(centre(picture), centre(REFERENCE)) < 1


def test_faint_pencil_on_grey_paper_is_as_good_as_ink() -> None:
    assert _distance(centre(_drawing(paper=200, ink=140)), centre(REFERENCE)) < 1


def test_noise_of_the_paper_is_not_ink() -> None:
    noise = np.random.default_rng(0).normal(0, 4, (200, 300))
    noisy = np.clip(np.asarray(_drawing(paper=230, ink=30)) + noise, 0, 255).astype(np.uint8)
    assert _distance(centre(Image.fromarray(noisy)), centre(REFERENCE)) < 4


def test_jpeg_with_a_turned_orientation_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees clockwise
    buffer = io.BytesIO()
    _drawing().rotate(90, expand=True).save(buffer, "JPEG", exif=exif, quality=95)
    assert _distance(centre(buffer.getvalue()), centre(REFERENCE)) < 2


def test_path_bytes_and_image_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "seven.png"
    path.write_bytes(_png(REFERENCE))
    expected = centre(REFERENCE)
    for picture in (path, str(path), path.read_bytes()):
        assert np.array_equal(centre(picture), expected)


def test_image_given_is_left_as_it_was() -> None:
    picture = _drawing("RGBA", paper=(0, 0, 0, 0), ink=(9, 9, 9, 255))
    before = picture.tobytes()
    centre(picture)
    assert picture.tobytes() == before


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (b"", "not a picture: it looks like nothing"),
        (b"no picture", "not a picture: it looks like text"),
        (_png(REFERENCE)[:60], "the PNG is truncated"),
        (_png(REFERENCE)[:-40], "the PNG is truncated"),
        (_png(REFERENCE).replace(b"IDATx", b"IDATy"), "the PNG picture is damaged: "),
    ],
)
def test_bytes_that_are_no_picture_are_refused(picture: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        centre(picture)


def test_every_cut_of_a_picture_is_a_digit_or_a_picture_error() -> None:
    buffer = io.BytesIO()
    REFERENCE.save(buffer, "GIF")
    refused = 0
    for data in (_png(REFERENCE), buffer.getvalue()):
        for end in range(0, len(data), 7):
            try:
                assert centre(data[:end]).shape == (28, 28, 1)
            except PictureError:
                refused += 1
    assert refused > 20


@pytest.mark.parametrize("paper", [0, 128, 255])
def test_blank_sheet_is_refused(paper: int) -> None:
    with pytest.raises(BlankPictureError, match="the picture is blank"):
        centre(Image.new("L", (60, 40), paper))


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGBA", (60, 40), (0, 0, 0, 0)),
        Image.new("F", (60, 40), 0.5),
        Image.new("L", (1, 1), 255),
        Image.fromarray(np.random.default_rng(0).integers(98, 104, (40, 60), dtype=np.uint8)),
    ],
    ids=["transparent", "float", "one pixel", "noise"],
)
def test_sheet_without_contrast_is_refused(picture: Image.Image) -> None:
    with pytest.raises(BlankPictureError):
        centre(picture)


def _png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8_000, 5_001), (10_000, 10_000), (60_000, 60_000)])
def test_bomb_is_refused_by_its_header(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(TooManyPixelsError, match="at most 40,000,000"):
        centre(_png_header(width, height))


def test_image_object_above_the_limit_is_refused() -> None:
    with pytest.raises(TooManyPixelsError, match="has 300 x 200 pixels; expected at most 59,999"):
        centre(REFERENCE, max_pixels=300 * 200 - 1)
    assert centre(REFERENCE, max_pixels=300 * 200).any()


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        centre(tmp_path / "none.png")
