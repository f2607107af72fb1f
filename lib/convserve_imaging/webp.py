"""Reads the header of a WebP: all that must be known before a pixel is decoded.

Source: RFC 9649, WebP Image Format: 2.3 (RIFF), 2.5 and 2.6 (simple files), 2.7 (extended ones),
3.4 (the header of a lossless picture); RFC 6386, VP8: 9.1 (the header of a frame).
"""

from dataclasses import dataclass

from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.exif import orientation
from convserve_imaging.signatures import looks_like

MAX_CHUNKS = 1024
"""Most chunks of a file: programs write seven at most."""

BYTES_A_PIXEL = 20
"""Memory that libwebp and Pillow take for a pixel until it is decoded, at most."""

_ALPHA, _ANIMATION = 0x10, 0x02
_KEY_FRAME = b"\x9d\x01\x2a"


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a WebP states.

    Attributes:
        width: columns, 1 or more, as stored: before `orientation`.
        height: rows, 1 or more, as stored.
        orientation: of Exif, 1 to 8: which corner comes first; 1 where it is missing or invalid.
        data: the file with those chunks alone that make its pixels.
    """

    width: int
    height: int
    orientation: int
    data: bytes


def is_webp(data: bytes) -> bool:
    """Returns whether a file begins as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_header(data: bytes) -> Header:
    """Reads the chunks of a WebP; decodes nothing.

    Args:
        data: the whole file.

    Raises:
        NotAPictureError: it is something else; the message says what it looks like.
        TruncatedPictureError: a part of it is missing.
        TooManyPixelsError: it has more chunks than `MAX_CHUNKS`.
        UnsupportedPictureError: it is an animation.
        DamagedPictureError: the header contradicts itself.
    """
    if not is_webp(data):
        raise NotAPictureError(f"not a WebP: it looks like {looks_like(data)}")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise TruncatedPictureError(
            f"the WebP is truncated: it has {len(data):,} bytes of the {end:,} in its header"
        )
    chunks = _chunks(memoryview(data)[:end])
    if _ANIMATION & _flags(chunks) or b"ANMF" in chunks:
        raise UnsupportedPictureError("the WebP is an animation; save one picture of it")
    frames = [kind for kind in (b"VP8 ", b"VP8L") if kind in chunks]
    if len(frames) != 1:
        raise DamagedPictureError(
            f"the WebP's header is damaged: expected one picture, got {len(frames)}"
        )
    [kind] = frames
    width, height = _lossy_size(chunks[kind]) if kind == b"VP8 " else _lossless_size(chunks[kind])
    canvas = chunks.get(b"VP8X")
    if canvas is not None and _canvas_size(canvas) != (width, height):
        raise DamagedPictureError(
            "the WebP's header is damaged: the picture is not of the size of its canvas"
        )
    turned = chunks.get(b"EXIF", memoryview(b""))
    if bytes(turned[:6]) == b"Exif\0\0":  # of JPEG; some programs leave it there
        turned = turned[6:]
    parts: list[tuple[bytes, memoryview]] = [(kind, chunks[kind])]
    if kind == b"VP8 " and b"ALPH" in chunks:
        extended = bytes([_ALPHA, 0, 0, 0]) + _24(width - 1) + _24(height - 1)
        parts = [(b"VP8X", memoryview(extended)), (b"ALPH", chunks[b"ALPH"]), *parts]
    return Header(width, height, orientation(turned), _file(parts))


def pixels(data: bytes) -> int:
    """Returns how many pixels its first chunk states; 0 where that is damaged."""
    chunk = memoryview(data)[20:30]
    if len(chunk) < 10:
        return 0
    sizes = {b"VP8 ": _lossy_size, b"VP8L": _lossless_size, b"VP8X": _canvas_size}
    try:
        width, height = sizes[data[12:16]](chunk)
    except (KeyError, DamagedPictureError):
        return 0
    return width * height


def _chunks(data: memoryview) -> dict[bytes, memoryview]:
    """Returns the first chunk of each kind."""
    found: dict[bytes, memoryview] = {}
    at = 12
    for _ in range(MAX_CHUNKS):
        if at == len(data):
            return found
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length
        if at + 8 > len(data) or end > len(data):
            raise TruncatedPictureError(
                f"the WebP is truncated: its {len(data):,} bytes end before its last chunk"
            )
        found.setdefault(bytes(data[at : at + 4]), data[at + 8 : end])
        at = min(end + length % 2, len(data))  # the last one's padding may be missing
    raise TooManyPixelsError(f"the WebP has more than {MAX_CHUNKS:,} chunks")


def _flags(chunks: dict[bytes, memoryview]) -> int:
    extended = chunks.get(b"VP8X")
    return extended[0] if extended else 0


def _lossy_size(frame: memoryview) -> tuple[int, int]:
    if len(frame) < 10:
        raise TruncatedPictureError("the WebP is truncated: its picture has no header")
    if frame[0] & 1 or bytes(frame[3:6]) != _KEY_FRAME:
        raise DamagedPictureError("the WebP's header is damaged: it does not begin with a picture")
    width, height = (int.from_bytes(frame[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    if not width or not height:
        raise DamagedPictureError(f"the WebP is empty: {width} x {height} pixels by its header")
    return width, height


def _lossless_size(frame: memoryview) -> tuple[int, int]:
    if len(frame) < 5:
        raise TruncatedPictureError("the WebP is truncated: its picture has no header")
    bits = int.from_bytes(frame[1:5], "little")
    if frame[0] != 0x2F or bits >> 29:
        raise DamagedPictureError("the WebP's header is damaged: it does not begin with a picture")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _canvas_size(extended: memoryview) -> tuple[int, int]:
    if len(extended) < 10:
        raise TruncatedPictureError("the WebP is truncated: its canvas has no size")
    width, height = (int.from_bytes(extended[at : at + 3], "little") + 1 for at in (4, 7))
    return width, height


def _24(number: int) -> bytes:
    return number.to_bytes(3, "little")


def _file(parts: list[tuple[bytes, memoryview]]) -> bytes:
    body = b"WEBP"
    for kind, content in parts:
        body += kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
