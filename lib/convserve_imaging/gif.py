"""Reads the header of a GIF up to the end of its first frame; decodes nothing.

Source: CompuServe, Graphics Interchange Format, version 89a: sections 17 to 27 and appendix F.
"""

from dataclasses import dataclass

from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    TooManyPixelsError,
    TruncatedPictureError,
)
from convserve_imaging.signatures import looks_like

SIGNATURES = (b"GIF87a", b"GIF89a")

MAX_BLOCKS = 65_536
"""Most blocks before the end of the first frame: 255 bytes each, so that these hold 16 MiB."""

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9


@dataclass(frozen=True, slots=True)
class Header:
    """What a GIF states of its first frame.

    Attributes:
        width: columns of the picture, 1 or more.
        height: rows of the picture, 1 or more.
        box: columns and rows of the picture that the frame covers: left, top, right, bottom.
        data: a GIF of the frame alone, as large as the frame.
    """

    width: int
    height: int
    box: tuple[int, int, int, int]
    data: bytes


class _Blocks:
    """Reads parts of a file in their order."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._blocks = 0

    def take(self, length: int) -> memoryview:
        """Returns the next bytes."""
        part = self._data[self._at : self._at + length]
        if len(part) < length:
            raise TruncatedPictureError(
                f"the GIF is truncated: its {len(self._data):,} bytes end before its first picture "
                "does"
            )
        self._at += length
        return part

    def sub_blocks(self) -> memoryview:
        """Returns blocks up to an empty one, with their lengths and that one."""
        start = self._at
        while length := self.take(1)[0]:
            self._blocks += 1
            if self._blocks > MAX_BLOCKS:
                raise TooManyPixelsError(f"the GIF has more than {MAX_BLOCKS:,} blocks")
            self.take(length)
        return self._data[start : self._at]


def is_gif(data: bytes) -> bool:
    """Returns whether a file begins as a GIF does."""
    return data.startswith(SIGNATURES)


def pixels(data: bytes) -> int:
    """Returns how many pixels its header states."""
    width, height = _pair(memoryview(data)[6:10])
    return width * height


def read_header(data: bytes) -> Header:
    """Reads what there is up to the end of the first frame.

    Args:
        data: the whole file.

    Raises:
        NotAPictureError: it is something else; the message says what it looks like.
        TruncatedPictureError: it ends before the first frame does.
        TooManyPixelsError: it has more blocks than `MAX_BLOCKS` before that.
        DamagedPictureError: the header contradicts itself.
    """
    if not is_gif(data):
        raise NotAPictureError(f"not a GIF: it looks like {looks_like(data)}")
    blocks = _Blocks(data)
    screen = blocks.take(13)
    palette = blocks.take(_palette_bytes(screen[10]))
    width, height = _pair(screen[6:])
    control = memoryview(b"")
    while (kind := blocks.take(1)[0]) == _EXTENSION:
        label = blocks.take(1)[0]
        content = blocks.sub_blocks()
        if label == _GRAPHIC_CONTROL:
            control = content
    if kind != _IMAGE:
        why = "it has no picture" if kind == _TRAILER else f"expected a picture, got 0x{kind:02x}"
        raise DamagedPictureError(f"the GIF is damaged: {why}")
    image = blocks.take(9)
    (left, top), (columns, rows) = _pair(image), _pair(image[4:])
    if not columns or not rows:
        raise DamagedPictureError(f"the GIF is empty: {columns} x {rows} pixels by its header")
    if left + columns > width or top + rows > height:
        raise DamagedPictureError(
            "the GIF's header is damaged: its first picture is larger than the whole"
        )
    local = blocks.take(_palette_bytes(image[8]))
    coded = (blocks.take(1), blocks.sub_blocks())
    size = image[4:8]
    frame: list[bytes | memoryview] = [b"GIF89a", size, screen[10:13], palette]
    if len(control) == 6:
        frame += [bytes([_EXTENSION, _GRAPHIC_CONTROL]), control]
    frame += [bytes([_IMAGE, 0, 0, 0, 0]), size, image[8:], local, *coded, bytes([_TRAILER])]
    return Header(width, height, (left, top, left + columns, top + rows), b"".join(frame))


def _pair(data: memoryview) -> tuple[int, int]:
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
