"""What a JPEG says of itself, before a pixel is decoded."""

import io

import pytest
from PIL import Image

from convserve_imaging.errors import DamagedPictureError, UnsupportedPictureError
from convserve_imaging.jpeg import read_header


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
