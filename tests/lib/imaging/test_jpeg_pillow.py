"""JPEGs of samplings that libjpeg-turbo's interface has no name for: decoded, but strictly."""

from pathlib import Path

import numpy as np
import pytest

from convserve_imaging import jpeg_pillow, jpeg_pixels
from convserve_imaging.errors import (
    DamagedPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.jpeg import read_header
from convserve_imaging.photos import decode
from tests.lib.imaging.test_photos import difference, scene

FROZEN = Path(__file__).parent / "frozen"
#: Made of the same scene by cjpeg, whose -sample the name says.
FILES = {file.name.split("_")[2]: file.read_bytes() for file in FROZEN.glob("sampled_*.jpg")}
HUFFMAN = ["baseline", "restarts", "optimised", "progressive"]


def scan(data: bytes) -> int:
    """Where the data of the first scan begin."""
    return data.index(b"\xff\xda") + 14


def refused(data: bytes) -> bool:
    try:
        decode(data, 60, 60)
    except DamagedPictureError:
        return True
    return False


@pytest.mark.parametrize("kind", [*HUFFMAN, "arithmetic"])
def test_whole_file_is_decoded(kind: str) -> None:
    assert difference(decode(FILES[kind], 100, 120), scene(176, 136)) < 4


@pytest.mark.parametrize("kind", HUFFMAN)
def test_cut_file_with_an_end_marker_is_refused(kind: str) -> None:
    data = FILES[kind]
    positions = range(scan(data) + 20, len(data) - 20, 41)
    assert len(positions) > 20
    kept = [position for position in positions if not refused(data[:position] + b"\xff\xd9")]
    # Between two scans a progressive picture may end.
    assert all(data.rfind(b"\xff\xda", 0, position + 20) > position - 40 for position in kept)
    assert len(kept) <= (2 if kind == "progressive" else 0)
    with pytest.raises(TruncatedPictureError, match="premature end of data segment"):
        decode(FILES["baseline"][: len(FILES["baseline"]) // 2] + b"\xff\xd9", 60, 60)


@pytest.mark.parametrize("how", ["inserted", "lost", "overwritten"])
@pytest.mark.parametrize("kind", HUFFMAN)
def test_damage_in_the_middle_is_refused(kind: str, how: str) -> None:
    """Some damage decodes, also with libjpeg's own warnings: its codes are as many as the right."""
    data = FILES[kind]
    random = np.random.default_rng(0)
    found = 0
    for position in np.linspace(scan(data) + 50, len(data) - 200, 20).astype(int):
        garbage = random.integers(0, 255, 40, np.uint8).tobytes()
        rest = data[position if how == "inserted" else position + 40 :]
        found += refused(data[:position] + (b"" if how == "lost" else garbage) + rest)
    assert found >= 13


def test_levels_out_of_their_range_are_damage() -> None:
    """The means of all blocks after a difference that is wrong are wrong too."""
    data = FILES["baseline"]
    quantised = data.index(b"\xff\xdb") + 5
    header = read_header(data)
    jpeg_pillow._check_means(header)  # noqa: SLF001
    coarse = read_header(data[:quantised] + b"\x60" + data[quantised + 1 :])
    with pytest.raises(DamagedPictureError, match="its levels run out of their range"):
        jpeg_pillow._check_means(coarse)  # noqa: SLF001


def test_memory_of_the_whole_picture_is_counted() -> None:
    data = FILES["baseline"]
    needed = 4 * 176 * 136
    assert decode(data, 20, 20, max_decoder_bytes=needed).shape == (20, 20, 3)
    with pytest.raises(TooManyPixelsError, match="has 176 x 136 pixels: decoding takes 1 MiB"):
        decode(data, 20, 20, max_decoder_bytes=needed - 1)


def test_what_would_take_too_long_to_look_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES["restarts"]
    restarts = data.index(b"\xff\xdd") + 4
    data = data[:restarts] + b"\0\0" + data[restarts + 2 : scan(data)]
    many = b"".join(b"\xff" + bytes([0xD0 + number % 8]) for number in range(1100))
    with pytest.raises(UnsupportedPictureError, match="has more than 1,024"):
        decode(data + many + b"\xff\xd9", 60, 60)
    monkeypatch.setattr(jpeg_pillow, "_MAX_PASSES", 100 * 176 * 136)
    with pytest.raises(TooManyPixelsError, match="in 10 scans, with"):
        decode(FILES["progressive"], 60, 60)


@pytest.mark.parametrize("kind", HUFFMAN)
def test_client_without_the_servers_decoder_is_as_strict(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg_pixels, "simplejpeg", None)
    data = FILES[kind]
    assert difference(decode(data, 100, 120), scene(176, 136)) < 4
    with pytest.raises(PictureError):
        decode(data[: len(data) // 2] + b"\xff\xd9", 60, 60)
