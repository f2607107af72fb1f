"""Reads the header of a JPEG: all that must be known before a pixel is decoded.

Source: ITU-T T.81 (JPEG), annex B.
"""

import struct
from dataclasses import dataclass

from convserve_imaging import exif
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.signatures import looks_like

SOI = b"\xff\xd8"
_SOS = 0xDA
_EOI = 0xD9
_APP1 = 0xE1
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RST: no length follows
#: Exif, ICC profiles and the like, and comments; not JFIF's and Adobe's, which tell the colours.
_METADATA = (frozenset(range(0xE1, 0xF0)) - {0xEE}) | {0xFE}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG, DAC
_LOSSLESS = 0xC3
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_ARITHMETIC = frozenset({0xC9, 0xCA})
_TAKEN = frozenset({0xC0, 0xC1, _LOSSLESS}) | _PROGRESSIVE | _ARITHMETIC


@dataclass(frozen=True, slots=True)
class Header:
    """What a JPEG says of itself.

    Attributes:
        width: columns, 1 to 65,535, as stored: before `orientation`.
        height: rows, 1 to 65,535, as stored.
        components: 1 (grey), 3 (YCbCr or RGB) or 4 (CMYK or YCCK).
        sampling: horizontal and vertical sampling factors of each component, 1 to 4.
        arithmetic: whether it has arithmetic codes in place of Huffman's.
        lossless: whether it is coded without a DCT, which cannot be decoded scaled.
        buffered: whether a decoder must hold the coefficients of the whole picture: progressive
            or more than one scan.
        scans: upper bound of the number of scans.
        orientation: of Exif, 1 to 8: which corner comes first; 1 where nothing or nonsense is said.
        data: the file, without metadata and stray bytes between the segments of its header.
    """

    width: int
    height: int
    components: int
    sampling: tuple[tuple[int, int], ...]
    arithmetic: bool
    lossless: bool
    buffered: bool
    scans: int
    orientation: int
    data: bytes

    @property
    def least_bytes(self) -> int:
        """Bytes that the file has at the very least if it holds the pixels of its header.

        A Huffman code has one bit or more, and each block of 8 x 8 pixels begins with one.
        """
        return 0 if self.arithmetic else self.width * self.height // (64 * 8)

    @property
    def coefficient_bytes(self) -> int:
        """Memory for the coefficients of the whole picture, 2 bytes each; 0 if none is needed."""
        if not self.buffered:
            return 0
        widest = max(horizontal for horizontal, _ in self.sampling)
        tallest = max(vertical for _, vertical in self.sampling)
        full = widest * tallest
        share = sum(horizontal * vertical for horizontal, vertical in self.sampling) / full
        return round(2 * self.width * self.height * share)


def read_header(data: bytes) -> Header:
    """Reads a JPEG up to its first scan; costs microseconds, whatever its size.

    Args:
        data: the whole file.

    Raises:
        NotAPictureError: it is something else; the message says what it looks like.
        TruncatedPictureError: it ends within its header.
        UnsupportedPictureError: a variety of JPEG that is not taken.
        DamagedPictureError: the header contradicts itself.
    """
    if not data.startswith(SOI):
        raise NotAPictureError(f"not a JPEG: it looks like {looks_like(data)}")
    reader = _Reader(data)
    frame: _Frame | None = None
    orientation = 1
    while True:
        marker, body = reader.next_segment()
        if marker in _FRAMES:
            if frame is not None:
                raise DamagedPictureError("the JPEG's header is damaged: it has two frames")
            frame = _frame(marker, body)
        elif marker == _APP1 and body.startswith(b"Exif\0"):
            orientation = exif.orientation(body[6:])
        elif marker == _SOS:
            break
        elif marker == _EOI:
            raise DamagedPictureError("the JPEG holds no picture: it ends after its header")
    if frame is None:
        raise DamagedPictureError("the JPEG's header is damaged: a scan comes before the frame")
    clean = reader.clean()
    buffered = frame.marker in _PROGRESSIVE or body[:1] != bytes([len(frame.sampling)])
    return Header(
        width=frame.width,
        height=frame.height,
        components=len(frame.sampling),
        sampling=frame.sampling,
        arithmetic=frame.marker in _ARITHMETIC,
        lossless=frame.marker == _LOSSLESS,
        buffered=buffered,
        # Entropy-coded data hold no FF DA; tables may, so it is a bound.
        scans=clean.count(b"\xff\xda") if buffered else 1,
        orientation=orientation,
        data=clean,
    )


class _Reader:
    """Takes the segments of a header one by one; notes what no decoder needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = len(SOI)
        #: Where stray bytes and metadata begin and end.
        self._needless: list[tuple[int, int]] = []

    def next_segment(self) -> tuple[int, bytes]:
        """Returns the next marker and the body of its segment, empty for a marker alone."""
        data = self._data
        start = data.find(b"\xff", self._at)
        while start >= 0 and data[start + 1 : start + 2] in (b"\xff", b"\x00"):
            # FF FF is a fill byte, FF 00 no marker.
            start = data.find(b"\xff", start + 1)
        if start < 0 or start + 2 > len(data):
            raise self._cut()
        if data[self._at : start].strip(b"\xff"):
            self._needless.append((self._at, start))
        marker = data[start + 1]
        if marker in _STANDALONE or marker == _EOI:
            self._at = start + 2
            return marker, b""
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if start + 4 > len(data) or end > len(data):
            raise self._cut()
        # A length counts its own two bytes: what says less than 2 has no body.
        self._at = max(end, start + 4)
        if marker in _METADATA:
            self._needless.append((start, self._at))
        return marker, data[start + 4 : end]

    def clean(self) -> bytes:
        """Returns the file without what no decoder needs."""
        kept = []
        at = 0
        for start, end in self._needless:
            kept.append(self._data[at:start])
            at = end
        return b"".join((*kept, self._data[at:])) if at else self._data

    def _cut(self) -> TruncatedPictureError:
        return TruncatedPictureError(
            f"the JPEG is truncated: its {len(self._data):,} bytes end within the header"
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    marker: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]


def _frame(marker: int, body: bytes) -> _Frame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise DamagedPictureError("the JPEG's header is damaged: its frame has a wrong length")
    precision, height, width, components = struct.unpack_from(">BHHB", body)
    if marker not in _TAKEN:
        raise UnsupportedPictureError(
            f"the JPEG is of a hierarchical or differential kind (SOF{marker - 0xC0}); baseline, "
            "progressive and lossless ones are taken"
        )
    if precision != 8:
        raise UnsupportedPictureError(f"the JPEG has {precision} bits a sample; 8 are taken")
    if components not in (1, 3, 4):
        raise UnsupportedPictureError(
            f"the JPEG has {components} components; 1 (grey), 3 (colour) and 4 (CMYK) are taken"
        )
    if not width or not height:
        raise DamagedPictureError(f"the JPEG is empty: {width} x {height} pixels by its header")
    sampling = tuple((factors >> 4, factors & 15) for factors in body[7::3])
    if not all(1 <= factor <= 4 for factors in sampling for factor in factors):
        raise DamagedPictureError("the JPEG's header is damaged: sampling factors are 1 to 4")
    return _Frame(marker, width, height, sampling)
