"""JPEG bytes to pixels: size, colour, orientation, limits; and all odd and broken files."""

import contextlib
import hashlib
import io
import re
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cykooz_resizer import CpuExtensions, Resizer
from PIL import Image, ImageOps

from convserve_imaging import jpeg_pillow, resizing
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.jpeg_pixels import MAX_DECODER_BYTES
from convserve_imaging.photos import decode
from tests.jpegs import folder, jpeg_of, odd_files

Pixels = npt.NDArray[np.uint8]


def scene(width: int, height: int) -> Image.Image:
    """A smooth picture whose four corners differ: black, red, green, yellow; some blue."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    blue = 60 + 50 * np.sin(across / 40)
    return Image.fromarray(np.stack([across, down, blue], axis=2).astype(np.uint8))


def saved(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **{"quality": 92, **options})
    return file.getvalue()


def difference(pixels: Pixels, picture: Image.Image) -> float:
    """Mean absolute difference from a picture brought to the same size by Pillow."""
    height, width, _ = pixels.shape
    expected = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return float(np.abs(pixels.astype(int) - np.asarray(expected, dtype=int)).mean())


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (1999, 1001), (151, 150), (40, 30)])
@pytest.mark.parametrize("target", [(150, 150), (64, 200), (1, 1), (299, 299)])
def test_result_is_what_pillow_makes_of_the_picture(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    picture = scene(*size)
    pixels = decode(saved(picture), *target)
    assert pixels.shape == (*target, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference(pixels, picture) < 3


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"optimize": True},
        {"restart_marker_blocks": 3},
        {"exif": b"Exif\0\0" + b"\xff" * 40},
        {"icc_profile": bytes(3000)},
        {"comment": b"\xff\xd8\xff\xc0\xff\xda"},
    ],
    ids=str,
)
def test_varieties_of_jpeg_give_the_same_picture(options: dict[str, object]) -> None:
    picture = scene(320, 240)
    assert difference(decode(saved(picture, **options), 150, 150), picture) < 3


def test_grey_becomes_three_equal_channels() -> None:
    pixels = decode(saved(scene(320, 240).convert("L")), 150, 150)
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert difference(pixels, scene(320, 240).convert("L")) < 3


def test_cmyk_is_read_as_adobe_writes_it() -> None:
    picture = scene(320, 240)
    pixels = decode(saved(picture.convert("CMYK")), 150, 150)
    assert difference(pixels, picture.convert("CMYK")) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(scene(400, 200), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert difference(decode(data, 100, 150), upright) < 3


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_orientation_that_does_not_exist_is_none(endian: str, orientation: int) -> None:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = orientation
    picture = scene(400, 200)
    assert difference(decode(saved(picture, exif=exif), 100, 150), picture) < 3


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (
            "baseline_420_500x375.jpg",
            "903933962252da442dec0a8d2f69e1d2",
        ),
        (
            "progressive_444_300x451.jpg",
            "3471e93322ba0bb671cdbfbca3183bc2",
        ),
        (
            "cmyk_turned_200x120.jpg",
            "85ae66f22fb17d8a3e73562cf16a4c6e",
        ),
    ],
)
def test_pixels_stay_what_they_were(name: str, digest: str) -> None:
    """Nets are trained on these very pixels: if this fails, photo-bilinear needs a new version."""
    pixels = decode((Path(__file__).parent / "frozen" / name).read_bytes(), 150, 150)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:32] == digest


def test_resizing_is_the_same_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg_of("red", (517, 389))
    found = []
    for extension in (CpuExtensions.none, CpuExtensions.sse4_1, CpuExtensions.avx2):
        resizer = Resizer()
        try:
            resizer.cpu_extensions = extension
        except ValueError:
            continue  # this CPU lacks it
        monkeypatch.setattr(resizing, "Resizer", lambda resizer=resizer: resizer)
        found.append(decode(data, 150, 140))
    assert len(found) >= 2
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_threads_decode_side_by_side_and_alike() -> None:
    files = [jpeg_of(colour, seed=seed) for seed in range(20) for colour in ("red", "blue")]
    alone = [decode(data, 150, 150) for data in files]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: decode(data, 150, 150), files * 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "nothing"),
        (bytes(1000), "zeros"),
        (b"\x89PNG\r\n\x1a\n....", "a PNG"),
        (b"GIF89a", "a GIF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP"),
        (b"\0\0\0\x18ftypheic", "a HEIC"),
        (b"\0\0\0\x18ftypavif", "an AVIF"),
        (b"\0\0\0\x18ftypisom", "an MP4"),
        (b"  <!DOCTYPE html><html>", "HTML"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b'{"error": "not found"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1", "text"),
        (b"%PDF-1.7", "a PDF"),
        (b"\r\n" + jpeg_of("red"), "a JPEG with 2 other bytes before it"),
        (b"\x9f\x00\x01\x02", "4 bytes beginning with 9f 00 01 02"),
        (b"\xff\xd8"[:1], "1 byte beginning with ff"),
    ],
)
def test_what_is_no_jpeg_is_named(data: bytes, says: str) -> None:
    with pytest.raises(NotAPictureError, match=f"^not a JPEG: it looks like {says}"):
        decode(data, 150, 150)


@pytest.mark.parametrize("progressive", [False, True])
def test_every_cut_is_truncated_down_to_the_end_marker(progressive: bool) -> None:
    data = saved(scene(120, 90), progressive=progressive)
    truncated = 0
    for end in range(3, len(data)):
        with pytest.raises(DamagedPictureError) as caught:
            decode(data[:end], 64, 64)
        truncated += isinstance(caught.value, TruncatedPictureError)
    # A cut in a table between two scans is a damaged table.
    assert truncated > 0.6 * len(data)
    assert decode(data, 64, 64).shape == (64, 64, 3)


def test_hole_in_the_data_is_an_error() -> None:
    data = saved(scene(320, 240))
    with pytest.raises(DamagedPictureError):
        decode(data[:2000] + data[3000:], 150, 150)


def with_stray(data: bytes, count: int) -> bytes:
    """The file with so many bytes left over before each restart marker and the end marker."""
    stray = b"\x12\x34\x56\x78\x9a\xbc"[:count]
    scan = data.index(b"\xff\xda") + 14
    return data[:scan] + re.sub(rb"(?=\xff[\xd0-\xd7\xd9])", stray, data[scan:])


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_few_bytes_that_are_left_over_do_no_harm(mode: str, options: dict[str, object]) -> None:
    """Webcams and scanners write them; more are the rest of damaged data."""
    data = saved(scene(200, 120).convert(mode), **options)
    plain = decode(data, 100, 90)
    for count in range(1, jpeg_pillow.MAX_STRAY_BYTES + 1):
        assert np.array_equal(decode(with_stray(data, count), 100, 90), plain)
    if options:
        with pytest.raises(DamagedPictureError, match="extraneous bytes before marker"):
            decode(with_stray(data, jpeg_pillow.MAX_STRAY_BYTES + 1), 100, 90)


def test_bytes_left_over_in_one_interval_and_missing_in_another_are_damage() -> None:
    data = with_stray(saved(scene(200, 120), restart_marker_rows=1), 2)
    marker = data.index(b"\xff\xd3")
    with pytest.raises(DamagedPictureError):
        decode(data[: marker - 30] + data[marker:], 100, 90)


def test_lossless_grey_picture_is_decoded() -> None:
    def segment(code: int, body: bytes) -> bytes:
        return bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body

    frame = segment(0xC3, b"\x08\0\x20\0\x18\x01\x01\x11\0")
    codes = segment(0xC4, b"\0\x01" + bytes(15) + b"\0")  # one code: no difference
    scan = segment(0xDA, b"\x01\x01\0\x01\0\0")
    data = b"\xff\xd8" + frame + codes + scan + bytes(24 * 32 // 8) + b"\xff\xd9"
    assert np.array_equal(decode(data, 32, 24), np.full((32, 24, 3), 128))
    assert np.array_equal(decode(data, 16, 12, channels=1), np.full((16, 12, 1), 128))


def with_size(data: bytes, width: int, height: int, marker: bytes = b"\xff\xc0") -> bytes:
    """The file with other dimensions in its frame header."""
    frame = data.index(marker)
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return data[: frame + 5] + size + data[frame + 9 :]


def test_more_pixels_than_the_limit_are_refused_by_the_header() -> None:
    data = saved(scene(320, 240))
    with pytest.raises(
        TooManyPixelsError, match="has 65500 x 65500 pixels; expected at most 67,108,864"
    ):
        decode(with_size(data, 65500, 65500), 150, 150)
    with pytest.raises(TooManyPixelsError, match=r"has 320 x 240 pixels; expected at most 76,799"):
        decode(data, 150, 150, max_pixels=76_799)
    assert decode(data, 150, 150, max_pixels=76_800).shape == (150, 150, 3)


def test_header_that_promises_more_than_the_file_can_hold_is_not_decoded() -> None:
    data = with_size(saved(scene(320, 240)), 8000, 8000)
    with pytest.raises(TruncatedPictureError, match="bytes cannot hold its 8000 x 8000 pixels"):
        decode(data, 150, 150)


def test_progressive_that_needs_much_memory_is_refused() -> None:
    data = saved(scene(64, 64), progressive=True, subsampling=0)
    huge = with_size(data, 8000, 8000, b"\xff\xc2") + bytes(500_000)
    with pytest.raises(TooManyPixelsError, match="is progressive: decoding takes 370 MiB"):
        decode(huge, 150, 150)


@pytest.mark.parametrize(
    ("kind", "size", "needed"),
    [
        # Two bytes for each sample of 4:2:0, held until the last scan, beside what comes out.
        ("progressive", (640, 480), 640 * 480 * 3 + 240 * 180 * 3),
        # At the smallest scale that is not smaller than what is asked for: 7/8, 3 bytes a pixel,
        # three times while it is resized.
        ("baseline", (2000, 171), 1750 * 150 * 9 + 150 * 150 * 3),
        ("baseline", (640, 480), 240 * 180 * 9 + 150 * 150 * 3),
    ],
)
def test_memory_for_decoding_is_bounded(kind: str, size: tuple[int, int], needed: int) -> None:
    data = saved(scene(*size), progressive=kind == "progressive")
    assert decode(data, 150, 150, max_decoder_bytes=needed).shape == (150, 150, 3)
    named = " and is progressive" if kind == "progressive" else ""
    with pytest.raises(TooManyPixelsError) as caught:
        decode(data, 150, 150, max_decoder_bytes=needed - 1)
    assert str(caught.value) == (
        f"the JPEG has {size[0]} x {size[1]} pixels{named}: "
        f"decoding takes {-(-needed >> 20)} MiB of memory, at most {needed - 1 >> 20} are given"
    )


def test_refusal_for_memory_says_the_limit() -> None:
    data = saved(scene(64, 64), progressive=True, subsampling=0)
    huge = with_size(data, 3000, 2000, b"\xff\xc2") + bytes(200_000)
    with pytest.raises(TooManyPixelsError, match="takes 35 MiB of memory, at most 16 are given"):
        decode(huge, 150, 150, max_decoder_bytes=16 << 20)


def test_many_scans_over_a_large_picture_are_refused() -> None:
    data = saved(scene(64, 64), progressive=True)
    scan = data[data.index(b"\xff\xda") : -2]
    bomb = with_size(data[:-2] + scan * 20, 4000, 4000, b"\xff\xc2") + bytes(200_000)
    with pytest.raises(
        TooManyPixelsError, match=r"4000 x 4000 pixels in 2\d\d scans; expected at most 67"
    ):
        decode(bomb, 150, 150)


def test_twelve_bits_are_unsupported() -> None:
    data = saved(scene(64, 64))
    frame = data.index(b"\xff\xc0")
    with pytest.raises(UnsupportedPictureError, match="12 bits a sample; expected 8"):
        decode(data[: frame + 4] + b"\x0c" + data[frame + 5 :], 150, 150)


def test_stray_bytes_in_the_header_do_no_harm() -> None:
    data = saved(scene(320, 240))
    frame = data.index(b"\xff\xc0")
    stray = data[:frame] + b"\0\x13stray" + data[frame:]
    assert np.array_equal(decode(stray, 150, 150), decode(data, 150, 150))


def test_second_frame_is_refused() -> None:
    data = saved(scene(64, 64))
    frame = data.index(b"\xff\xc0")
    with pytest.raises(DamagedPictureError, match="two frames"):
        decode(data[:frame] + data[frame : frame + 19] + data[frame:], 150, 150)


#: Damaged although its index says otherwise: 1,214 bytes too many in its scan, stripes to look at.
STRIPES = "valid/pillow_hopper_bad_exif.jpg"


@pytest.mark.parametrize("size", [16, 150, 400])
def test_odd_and_broken_files_give_pixels_or_a_clear_error(size: int) -> None:
    counted = 0
    for name, kind, data in odd_files():
        counted += 1
        try:
            pixels: Pixels | None = decode(data, size, size)
            error = None
        except PictureError as refused:
            pixels, error = None, refused
        if name == STRIPES:
            assert isinstance(error, DamagedPictureError)
        elif kind == "ok":
            assert error is None, f"{name}: {error}"
        elif kind != "decodes_anyway":
            assert error is not None, f"{name} ({kind}) was decoded"
        if pixels is not None:
            assert pixels.shape == (size, size, 3), name
        else:
            assert "\n" not in str(error), name
            assert len(str(error)) < 200, name
        if kind in ("bomb", "bomb_warning"):
            assert isinstance(error, TooManyPixelsError | NotAPictureError), name
        if name.startswith("broken/trunc") and len(data) > 2:
            assert isinstance(error, TruncatedPictureError), name
    assert counted >= 300


def test_odd_files_cost_little_cpu_and_memory() -> None:
    files = {name: data for name, _, data in odd_files()}
    # Six megapixels: what an ordinary photograph costs here and now.
    ordinary_s = _cpu_s(files["valid/large_3000x2000.jpg"])
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, data in files.items():
        assert _cpu_s(data) < 30 * ordinary_s, name
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < MAX_DECODER_BYTES // 1024


def _cpu_s(data: bytes) -> float:
    """CPU seconds of this thread, the least of three tries: others use the machine too."""
    spent = []
    for _ in range(3):
        started = time.thread_time()
        with contextlib.suppress(PictureError):
            decode(data, 150, 150)
        spent.append(time.thread_time() - started)
    return min(spent)


def test_files_with_random_bytes_in_their_headers_give_pixels_or_a_clear_error() -> None:
    random = np.random.default_rng(0)
    seeds = [saved(scene(64, 48)), saved(scene(64, 48), progressive=True), jpeg_of("red", (40, 40))]
    refused = 0
    for turn in range(3000):
        data = bytearray(seeds[turn % len(seeds)])
        for _ in range(random.integers(1, 4)):
            data[random.integers(2, 640)] = random.integers(256)
        try:
            assert decode(bytes(data), 20, 20).shape == (20, 20, 3)
        except PictureError:
            refused += 1
    assert refused > 500


def test_real_photographs_match_pillow() -> None:
    files = sorted((folder("cats_dogs") / "validation").glob("*/*"))[::25]
    assert len(files) == 40
    for file in files:
        with Image.open(file) as picture:
            assert difference(decode(file.read_bytes(), 150, 150), picture) < 6, file.name
