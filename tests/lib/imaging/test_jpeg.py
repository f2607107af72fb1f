"""What a JPEG says of itself, before a pixel is decoded."""

import io
import struct
import tracemalloc

import pytest
from PIL import Image

from convserve_imaging import jpeg_pixels
from convserve_imaging.errors import (
    DamagedPictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.jpeg import MAX_SEGMENTS, MAX_STRAY_BYTES, read_header
from convserve_imaging.picture_cost import decoding_s
from tests.pngs import flat_png


def saved(mode: str = "RGB", size: tuple[int, int] = (70, 50), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 128 if mode == "L" else None).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "components"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
def test_size_and_components(mode: str, components: int) -> None:
    header = read_header(saved(mode))
    assert (header.width, header.height, header.components) == (70, 50, components)
    assert len(header.sampling) == components


@pytest.mark.parametrize(("subsampling", "first"), [(0, (1, 1)), (1, (2, 1)), (2, (2, 2))])
def test_sampling_factors(subsampling: int, first: tuple[int, int]) -> None:
    assert read_header(saved(subsampling=subsampling)).sampling == (first, (1, 1), (1, 1))


def test_coefficients_of_progressive_pictures_need_memory() -> None:
    assert read_header(saved(size=(640, 480))).coefficient_bytes == 0
    assert read_header(saved(size=(640, 480))).scans == 1
    half = read_header(saved(size=(640, 480), progressive=True, subsampling=2))
    assert half.coefficient_bytes == 2 * 640 * 480 * 3 // 2
    assert half.scans > 5
    full = read_header(saved(size=(640, 480), progressive=True, subsampling=0))
    assert full.coefficient_bytes == 2 * 640 * 480 * 3


def test_metadata_is_left_out_of_what_is_decoded() -> None:
    plain = saved()
    comment = b"a comment with an embedded \xff\xda and \xff\xd9"
    data = saved(exif=b"Exif\0\0" + b"\x07" * 5000, icc_profile=bytes(9000), comment=comment)
    assert read_header(data).data == read_header(plain).data == plain
    assert len(data) > len(plain) + 14_000


def test_stray_and_fill_bytes_are_passed_over() -> None:
    plain = saved()
    table = plain.index(b"\xff\xdb")
    assert read_header(plain[:table] + b"stray\xff\x00" + plain[table:]).data == plain
    # Fill bytes belong to the marker: nothing is stray.
    filled = plain[:table] + b"\xff\xff\xff" + plain[table:]
    assert read_header(filled).data == filled


@pytest.mark.parametrize("code", [0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])
def test_rare_processes_are_unsupported(code: int) -> None:
    data = saved().replace(b"\xff\xc0", bytes([0xFF, code]), 1)
    with pytest.raises(UnsupportedPictureError, match=rf"SOF{code - 0xC0}\)"):
        read_header(data)


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (3, b"\x12", "wrong length"),
        (5, b"\0\0", "empty: 70 x 0"),
        (7, b"\0\0", "empty: 0 x 50"),
        (9, b"\x04", "wrong length"),
        (11, b"\x00", "sampling factors"),
        (11, b"\x52", "sampling factors"),
    ],
)
def test_frame_that_makes_no_sense_is_damaged(offset: int, value: bytes, says: str) -> None:
    data = bytearray(saved())
    frame = data.index(b"\xff\xc0")
    data[frame + offset : frame + offset + len(value)] = value
    with pytest.raises(DamagedPictureError, match=says):
        read_header(bytes(data))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0XX\0*\0\0\0\x08\0\x01",
        # The entry of the orientation, cut; of type BYTE; and with value 9, also of type LONG.
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x01\0\0\0\x01\0\x06\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\x06\0\x09",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0",
    ],
)
def test_exif_that_makes_no_sense_is_ignored(exif: bytes) -> None:
    assert read_header(saved(exif=exif)).orientation == 1


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0",
        # Type LONG.
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0",
    ],
)
def test_orientation_in_both_byte_orders_and_types(exif: bytes) -> None:
    assert read_header(saved(exif=exif)).orientation == 6


def _segment(code: int, body: bytes = b"") -> bytes:
    return bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body


COMMENT, TABLES, CODES, RESTART = _segment(0xFE), _segment(0xDB), _segment(0xC4), b"\xff\xd0"


@pytest.mark.parametrize("segment", [COMMENT, TABLES, CODES, RESTART, b"\xff\x01"])
def test_segments_are_bounded(segment: bytes) -> None:
    plain = saved()
    count, at = 0, 2
    while at <= plain.index(b"\xff\xda"):
        at += 2 + int.from_bytes(plain[at + 2 : at + 4], "big")
        count += 1
    most = MAX_SEGMENTS - count
    assert read_header(plain[:2] + segment * most + plain[2:]).width == 70
    with pytest.raises(TooManyPixelsError, match="more than 1,024 segments before its first scan"):
        read_header(plain[:2] + segment * (most + 1) + plain[2:])
    # What comes after the bound is not looked at, however much it is.
    with pytest.raises(TooManyPixelsError, match="more than 1,024 segments before its first scan"):
        read_header(plain[:2] + segment * MAX_SEGMENTS + b"\xff\xe1\xff\xff")


@pytest.mark.parametrize("stray", [b"\xff", b"\xff\x00", b"a", b"a\xff\x00"], ids=repr)
def test_bytes_between_segments_are_bounded(stray: bytes) -> None:
    plain = saved()
    fits = MAX_STRAY_BYTES // len(stray)
    assert read_header(plain[:2] + stray * (fits - 1) + plain[2:]).width == 70
    for much in (fits + 2, (1 << 20) // len(stray)):
        with pytest.raises(DamagedPictureError, match="more than 65,536 bytes between its segm"):
            read_header(plain[:2] + stray * much + plain[2:])


@pytest.mark.parametrize("many", [COMMENT * 1000, b"a" * 60_000, _segment(0xE2, bytes(60_000))])
def test_header_is_read_without_copies_of_the_file(many: bytes) -> None:
    plain = saved()
    data = plain[:2] + many + plain[2:] + bytes(8 << 20)
    refused = plain[:2] + _segment(0xE2, bytes(60_000)) * 200 + plain[2:40]
    tracemalloc.start()
    try:
        header = read_header(data)
        _, peak = tracemalloc.get_traced_memory()
        assert len(header.data) <= peak < len(header.data) + (1 << 20)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with pytest.raises(TruncatedPictureError):
            read_header(refused)
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 1 << 20
    finally:
        tracemalloc.stop()


def test_only_the_first_of_many_exif_blocks_counts() -> None:
    entry = b"\x01\x12\0\x03\0\0\0\x01\0%c\0\0"
    blocks = [b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry % turn for turn in (6, 3)]
    data = saved()
    data = data[:2] + b"".join(_segment(0xE1, block) for block in blocks) + data[2:]
    assert read_header(data).orientation == 6


def _flat(size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (130, 120, 110)).save(file, "JPEG", optimize=True, **options)
    return file.getvalue()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_flat_pictures_hold_what_their_header_needs_and_little_more(
    progressive: bool, subsampling: int
) -> None:
    data = _flat((3000, 2000), progressive=progressive, subsampling=subsampling)
    header = read_header(data)
    samples = {0: 3, 1: 2, 2: 1.5}[subsampling] * 3000 * 2000
    assert header.blocks == pytest.approx(samples / 64, rel=0.01)
    assert 0.4 * len(data) < header.least_bytes <= len(data)
    jpeg_pixels.check_size(header, 1 << 26)
    rest = len(data) - header.least_bytes
    cut = read_header(data[: len(data) - rest - 1])
    with pytest.raises(TruncatedPictureError, match="bytes cannot hold its 3000 x 2000 pixels"):
        jpeg_pixels.check_size(cut, 1 << 26)


def test_lossless_pictures_have_a_bit_for_each_sample() -> None:
    frame = _segment(0xC3, struct.pack(">BHHB", 8, 1000, 800, 1) + b"\x01\x11\x00")
    scan = _segment(0xDA, b"\x01\x01\x00\x01\x00\x00")
    header = read_header(b"\xff\xd8" + frame + scan + bytes(99_000) + b"\xff\xd9")
    assert header.least_bytes == 1000 * 800 // 8
    with pytest.raises(TruncatedPictureError, match="cannot hold its 800 x 1000 pixels"):
        jpeg_pixels.check_size(header, 1 << 26)


def _arithmetic(size: int, scans: int, progressive: bool = False) -> bytes:
    """A picture of nothing: each decision of its empty scans is the expected one."""
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    frame = struct.pack(">BHHB", 8, size, size, 3) + components
    data = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\1" * 64)
    data += _segment(0xCA if progressive else 0xC9, frame)
    for scan in range(scans):
        band = bytes([scan % 63 + 1] * 2 if progressive and scan else [0, 0 if progressive else 63])
        data += _segment(0xDA, bytes([1, scan % 3 + 1, 0]) + band + b"\0")
    return data + b"\xff\xd9"


@pytest.mark.parametrize("progressive", [False, True])
def test_arithmetic_picture_of_nothing_is_refused(progressive: bool) -> None:
    header = read_header(_arithmetic(6600, 3, progressive))
    with pytest.raises(
        TooManyPixelsError,
        match=r"6600 x 6600 pixels in 3 scans of 1\d\d bytes; expected at most 4,096 pixels for a",
    ):
        jpeg_pixels.check_size(header, 1 << 26)
    # Each scan passes over the picture again.
    jpeg_pixels.check_size(read_header(_arithmetic(400, 3, progressive)), 1 << 26)
    if progressive:
        with pytest.raises(TooManyPixelsError, match="400 x 400 pixels in 60 scans"):
            jpeg_pixels.check_size(read_header(_arithmetic(400, 60, progressive)), 1 << 26)


def test_scans_are_bounded() -> None:
    scan = _segment(0xDA, b"\x01\x01\x00\x3f\x3f\x00")
    data = saved(size=(8, 8), progressive=True)
    with pytest.raises(TooManyPixelsError, match=r"has 5\d\d scans; expected at most 500"):
        read_header(data[:-2] + scan * 500 + data[-2:])
    assert read_header(data[:-2] + scan * 400 + data[-2:]).scans > 400


@pytest.mark.parametrize("parameters", [b"\0\0\0", b"\0\x40\0", b"\x01\x3f\0", b"\0\x3f\x11"])
def test_parameters_of_sequential_scans_have_their_usual_values(parameters: bytes) -> None:
    plain = saved()
    scan = plain.index(b"\xff\xda")
    odd = plain[: scan + 11] + parameters + plain[scan + 14 :]
    assert odd != plain
    assert read_header(odd).data == plain
    # Those of progressive ones say what the scan holds.
    progressive = saved(progressive=True)
    assert read_header(progressive).data == progressive


def test_parameters_of_every_scan_are_mended() -> None:
    data = _arithmetic(8, 3)
    odd = data.replace(b"\0\x3f\0", b"\0\0\0")
    assert odd.count(b"\0\0\0") >= 3
    assert read_header(odd).data == data


@pytest.mark.parametrize("version", [b"\0\0", b"\x02\x01", b"\xff\xff"])
def test_version_of_jfif_is_one_that_is_known(version: bytes) -> None:
    plain = saved()
    assert plain[6:13] == b"JFIF\0\x01\x01"
    assert read_header(plain[:11] + version + plain[13:]).data == plain
    newer = plain[:11] + b"\x01\x02" + plain[13:]
    assert read_header(newer).data == newer


@pytest.mark.parametrize(("mode", "usual"), [("RGB", 1), ("CMYK", 2)])
def test_transform_of_adobe_is_one_that_is_known(mode: str, usual: int) -> None:
    data = saved(mode)
    adobe = _segment(0xEE, b"Adobe\xc0\x64\0\0\0\0%c")
    other = data[:2] + adobe.replace(b"%c", b"\xe0") + data[2:]
    if mode == "CMYK":  # Pillow writes Adobe's marker itself
        at = data.index(b"Adobe") + 11
        other = data[:at] + b"\xe0" + data[at + 1 :]
    cleaned = read_header(other).data
    assert cleaned[cleaned.index(b"Adobe") + 11] == usual
    assert read_header(cleaned).data == cleaned


def test_cost_is_estimated_by_the_header() -> None:
    small, large = saved(size=(80, 60)), saved(size=(4000, 3000))
    assert 0 < decoding_s(small) < decoding_s(large) / 10
    assert decoding_s(saved(size=(4000, 3000), progressive=True)) > 4 * decoding_s(large)
    assert decoding_s(_arithmetic(6600, 3)) > 0.1
    assert decoding_s(flat_png(6320, 6320, 1)) > 0.1
    assert decoding_s(flat_png(6320, 6320, 8, 6)) > 3 * decoding_s(flat_png(6320, 6320, 1))
    for nothing in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"text", small[:20]):
        assert 0 < decoding_s(nothing) < 1e-4
