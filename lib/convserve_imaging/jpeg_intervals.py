"""The entropy-coded data of a JPEG, cut at its restart markers.

What comes between two restart markers is coded on its own, so it can be decoded as a picture of its
own. Source: ITU-T T.81 (JPEG), B.1.1.5, B.2.1 and E.1.4.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convserve_imaging.errors import DamagedPictureError, UnsupportedPictureError
from convserve_imaging.jpeg import EOI, FRAMES, MARKER, SOS, Header, segments

MAX_INTERVALS = 1024
"""Most intervals that are read, of all scans."""

PADDING = 16
"""Bytes, more than libjpeg reads ahead."""

_DRI = 0xDD
_FIRST_RESTART = 0xD0

#: Largest side of a picture; libjpeg's bound.
_MAX_SIDE = 65_500

END = bytes([0xFF, EOI])
_RESTART = bytes([0xFF, _FIRST_RESTART])


@dataclass(frozen=True, slots=True)
class Interval:
    """Entropy-coded data without a marker in them.

    Attributes:
        start: where they begin in the file.
        end: where they end: at a fill byte or a marker.
        restarted: whether a restart marker follows, and so another interval of the same scan.
    """

    start: int
    end: int
    restarted: bool


def intervals(header: Header, most: int = MAX_INTERVALS) -> list[Interval]:
    """Returns the intervals of all scans.

    Args:
        header: of the file.
        most: number of intervals that is accepted.

    Raises:
        UnsupportedPictureError: there are more.
        DamagedPictureError: no end marker follows, or restart markers are missing, too many or out
            of order.
    """
    data = header.data
    found: list[Interval] = []
    names = b""
    every = restarts = start = units = 0
    for code, position, end in markers(data):
        restarted = _FIRST_RESTART <= code < _FIRST_RESTART + 8
        if start:
            filled = position
            while filled > start and data[filled - 1] == 0xFF:
                filled -= 1
            found.append(Interval(start, filled, restarted))
            if restarted and code != _FIRST_RESTART + restarts % 8:
                raise _damaged("are out of order")
            if not restarted and every and restarts != -(-units // every) - 1:
                raise _damaged(f"are {restarts} in a scan, not {-(-units // every) - 1}")
            if len(found) > most:
                raise UnsupportedPictureError(
                    "the JPEG is of a kind of which each part between restart markers is looked "
                    f"at, and has more than {most:,}"
                )
        restarts = restarts + 1 if restarted else 0
        start = end if restarted or code == SOS else 0
        if code in FRAMES:
            names = data[position + 10 : end : 3]
        elif code == _DRI:
            every = int.from_bytes(data[position + 4 : position + 6], "big")
        elif code == SOS:
            units = _units_of(
                header, [names.find(name) for name in data[position + 5 : end - 3 : 2]]
            )
    return found


def _damaged(how: str) -> DamagedPictureError:
    return DamagedPictureError(f"the JPEG is damaged: its restart markers {how}")


def _units_of(header: Header, components: list[int]) -> int:
    """Returns how many units a scan has, of all components or of some. Source: T.81, A.2."""
    if len(components) == 1 and header.components > 1:
        rows, columns = header.sizes[components[0]]
        size = 1 if header.lossless else 8
        return -(-rows // size) * -(-columns // size)
    across, down, _, _ = _units(header)
    return across * down


def markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields all markers up to the end marker: code, position, and where its segment ends."""
    at = 0
    for code, position, _, at in segments(data):
        yield code, position, at
        if code == SOS:
            break
    while True:
        found = MARKER.search(data, at)
        if found is None:
            raise DamagedPictureError("the JPEG is damaged: its data have no end")
        code, at = data[found.start() + 1], found.end()
        if not _FIRST_RESTART <= code < _FIRST_RESTART + 8 and code != EOI:
            at += int.from_bytes(data[at : at + 2], "big")
        yield code, found.start(), at
        if code == EOI:
            return


def pictures(header: Header, parts: Sequence[Interval], *, twice: bool = False) -> list[bytes]:
    """Returns a file for each interval of a single scan, with that interval alone.

    Args:
        header: of the file, which has one sequential scan.
        parts: all intervals.
        twice: whether the interval is there twice where a restart marker follows in the file, with
            one between and `PADDING` bytes too many before it. libjpeg says how many bytes are left
            over there, which it does not where it reads ahead to a marker.

    Raises:
        DamagedPictureError: they are not whole rows, and too long to be one.
    """
    data = header.data
    start = bytearray(data[: parts[0].start])
    every = size = restart = 0
    for marker, _, body, _ in segments(data):
        if marker == _DRI:
            restart = body
            (every,) = struct.unpack_from(">H", start, restart)
            start[restart : restart + 2] = b"\0\0"
        elif marker in FRAMES:
            size = body + 1
        elif marker == SOS:
            break
    columns, rows, width, height = _units(header)
    total = columns * rows
    every = every or total
    files = []
    for number, part in enumerate(parts):
        count = min(every, total - number * every)
        across, down = (count, 1) if count * width <= _MAX_SIDE else (columns, -(-count // columns))
        if across * down != count:
            raise _damaged("are where no row ends")
        coded = data[part.start : part.end]
        if twice and part.restarted:
            struct.pack_into(">H", start, restart, count)
            coded += bytes(PADDING) + _RESTART + coded
            down *= 2
        elif restart:
            struct.pack_into(">H", start, restart, 0)
        struct.pack_into(">HH", start, size, down * height, across * width)
        files.append(bytes(start) + coded + END)
    return files


def _units(header: Header) -> tuple[int, int, int, int]:
    """Returns how many units a scan has across and down, and the columns and rows of each.

    Source: T.81, A.2.
    """
    width = height = 1 if header.lossless else 8
    if header.components > 1:
        width *= max(horizontal for horizontal, _ in header.sampling)
        height *= max(vertical for _, vertical in header.sampling)
    return -(-header.width // width), -(-header.height // height), width, height
