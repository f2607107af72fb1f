"""Reads the header of a JPEG: all that must be known before a pixel is decoded.

Source: ITU-T T.81 (JPEG), annex B.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from convserve_imaging import exif
from convserve_imaging.errors import (
    DamagedPictureError,
    NotAPictureError,
    PictureError,
    TooManyPixelsError,
    TruncatedPictureError,
    UnsupportedPictureError,
)
from convserve_imaging.signatures import looks_like

SOI = b"\xff\xd8"
SOS = 0xDA
EOI = 0xD9
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RST: no length follows
#: Exif, ICC profiles and the like, and comments; not JFIF's and Adobe's, which decide the colours.
_METADATA = (frozenset(range(0xE1, 0xF0)) - {0xEE}) | {0xFE}
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG, DAC
_LOSSLESS = 0xC3
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_ARITHMETIC = frozenset({0xC9, 0xCA})
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_SUPPORTED = _SEQUENTIAL | _PROGRESSIVE | {_LOSSLESS}

MAX_SEGMENTS = 1024
"""Most segments before the first scan. Photographs of 2,000 users have 14 at most; metadata of 16
MiB, the largest message of a server by default, have 257."""

MAX_STRAY_BYTES = 1 << 16
"""Most stray and fill bytes between segments, together: what a segment holds whose length was
damaged."""

MAX_SCANS = 500
"""Most scans. Progressive pictures have 10 to 20; libjpeg-turbo's authors test with this bound."""

#: FF 00 is not a marker, and FF FF is a fill byte.
MARKER = re.compile(rb"\xff[^\x00\xff]")

#: Version 1.01, in position of a version that libjpeg warns about.
_JFIF_VERSION = b"\x01\x01"
_JFIF = b"JFIF\0"
_EXIF = b"Exif\0"
_ADOBE = b"Adobe"
#: Of Adobe's, by the number of components: none, YCbCr or YCCK. Others are read as the last one.
_TRANSFORMS = MappingProxyType({3: b"\0\1", 4: b"\0\2"})
#: Spectral selection and approximation of a scan that is not progressive: all, in one.
_WHOLE_SCAN = b"\0\x3f\0"

#: Samplings that libjpeg-turbo's interface has a name for, and how often others are decoded.
_NAMED = frozenset(
    ((across, down), (1, 1), (1, 1))
    for across, down in ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4))
)
_CHECKED = 8

_Mend: TypeAlias = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a JPEG states.

    Attributes:
        width: columns, 1 to 65,535, as stored: before `orientation`.
        height: rows, 1 to 65,535, as stored.
        components: 1 (grey), 3 (YCbCr or RGB) or 4 (CMYK or YCCK).
        sampling: horizontal and vertical sampling factors of each component, 1 to 4.
        arithmetic: whether it has arithmetic codes in position of Huffman's.
        lossless: whether it is coded without a DCT, which cannot be decoded scaled.
        progressive: whether it is coded in scans of more and more detail.
        buffered: whether a decoder must hold the coefficients of the whole picture: progressive
            or more than one scan.
        scans: upper bound of the number of scans.
        orientation: of Exif, 1 to 8: which corner comes first; 1 where it is missing or invalid.
        data: the file, without metadata and stray bytes between the segments of its header; fields
            that decoders need not, and warn of, have their usual values.
    """

    width: int
    height: int
    components: int
    sampling: tuple[tuple[int, int], ...]
    arithmetic: bool
    lossless: bool
    progressive: bool
    buffered: bool
    scans: int
    orientation: int
    data: bytes

    @property
    def blocks(self) -> int:
        """Blocks of 8 x 8 samples in all components, without those that only fill the edges."""
        return sum(-(-rows // 8) * -(-columns // 8) for rows, columns in self.sizes)

    @property
    def least_bytes(self) -> int:
        """Bytes that the file has at the very least if it holds the pixels of its header.

        A Huffman code has one bit or more. A block has two codes in a sequential picture (of its
        mean, and that there is no more), one in a progressive one (of its mean; further scans may
        pass over thousands of blocks by one code), and each sample has one in a lossless one.
        Arithmetic codes have no such bound: thousands of expected events cost one bit.
        """
        if self.arithmetic:
            return 0
        if self.lossless:
            return sum(rows * columns for rows, columns in self.sizes) // 8
        return self.blocks * (1 if self.progressive else 2) // 8

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

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Rows and columns of each component. Source: T.81, A.1.1."""
        widest = max(horizontal for horizontal, _ in self.sampling)
        tallest = max(vertical for _, vertical in self.sampling)
        return [
            (-(-self.height * vertical // tallest), -(-self.width * horizontal // widest))
            for horizontal, vertical in self.sampling
        ]


def read_header(data: bytes) -> Header:
    """Reads a JPEG up to its first scan; costs microseconds, whatever its size.

    Args:
        data: the whole file.

    Raises:
        NotAPictureError: it is something else; the message says what it looks like.
        TruncatedPictureError: it ends within its header.
        UnsupportedPictureError: a variety of JPEG that is not supported.
        TooManyPixelsError: it has more segments than `MAX_SEGMENTS`, or more scans.
        DamagedPictureError: the header contradicts itself.
    """
    if not data.startswith(SOI):
        raise NotAPictureError(f"not a JPEG: it looks like {looks_like(data)}")
    whole = memoryview(data)
    mends: list[_Mend] = []
    frame: _Frame | None = None
    orientation = 0
    adobe = 0  # position of its transform of colours
    for marker, position, start, end in segments(data, mends):
        body = whole[start:end]
        if marker in FRAMES:
            if frame is not None:
                raise DamagedPictureError("the JPEG's header is damaged: it has two frames")
            frame = _frame(marker, body)
        elif marker in _METADATA:
            mends.append((position, end, b""))
            if marker == _APP1 and not orientation and bytes(body[:5]) == _EXIF:
                orientation = exif.orientation(body[6:])
        elif marker == _APP0 and bytes(body[:5]) == _JFIF and len(body) >= 7 and body[5] != 1:
            mends.append((start + 5, start + 7, _JFIF_VERSION))
        elif marker == _APP14 and bytes(body[:5]) == _ADOBE and len(body) >= 12:
            adobe = start + 11
        elif marker == SOS:
            break
        elif marker == EOI:
            raise DamagedPictureError("the JPEG holds no picture: it ends after its header")
    if frame is None:
        raise DamagedPictureError("the JPEG's header is damaged: a scan comes before the frame")
    progressive = frame.marker in _PROGRESSIVE
    buffered = progressive or bytes(body[:1]) != bytes([len(frame.sampling)])
    # Entropy-coded data hold no FF DA; tables may, so it is a bound.
    scans = data.count(b"\xff\xda", position) if buffered else 1
    if scans > MAX_SCANS:
        raise TooManyPixelsError(f"the JPEG has {scans} scans; expected at most {MAX_SCANS}")
    components = len(frame.sampling)
    usual = _TRANSFORMS.get(components)
    if adobe and usual and data[adobe] not in usual:
        mends.append((adobe, adobe + 1, usual[-1:]))
    if frame.marker in _SEQUENTIAL:
        mends += _whole_scans(data, position, frame.names, scans)
    return Header(
        width=frame.width,
        height=frame.height,
        components=components,
        sampling=frame.sampling,
        arithmetic=frame.marker in _ARITHMETIC,
        lossless=frame.marker == _LOSSLESS,
        progressive=progressive,
        buffered=buffered,
        scans=scans,
        orientation=orientation or 1,
        data=_mended(data, mends),
    )


def passes(data: bytes) -> tuple[int, bool]:
    """Returns what decoding goes through, for an estimate of its cost.

    Args:
        data: the whole file.

    Returns:
        Pixels, counted again in each scan of a picture that has many, and whether the codes are
        arithmetic; 0 where the header is damaged.
    """
    try:
        for marker, position, start, end in segments(data):
            if marker in FRAMES:
                frame = _frame(marker, memoryview(data)[start:end])
                repeated = frame.marker in _PROGRESSIVE
                scans = data.count(b"\xff\xda", position) if repeated else 1
                often = 1 if len(frame.sampling) == 1 or frame.sampling in _NAMED else _CHECKED
                passed = frame.width * frame.height * scans * often
                return passed, frame.marker in _ARITHMETIC
    except PictureError:
        pass  # nothing will be decoded, and the decoder says why
    return 0, False


def segments(data: bytes, mends: list[_Mend] | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Yields the segments of the header: marker, where it is, and where its body starts and ends.

    Args:
        data: the whole file.
        mends: stray bytes are added to it, if given.

    Raises:
        TruncatedPictureError: it ends within its header.
        TooManyPixelsError: there are more than `MAX_SEGMENTS`.
        DamagedPictureError: there are more than `MAX_STRAY_BYTES` between them.
    """
    at = len(SOI)
    left = MAX_STRAY_BYTES
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, at, at + left + 2)
        if found is None:
            if at + left + 2 < len(data):
                raise DamagedPictureError(
                    "the JPEG's header is damaged: it has more than "
                    f"{MAX_STRAY_BYTES:,} bytes between its segments"
                )
            raise _cut(data)
        position = found.start()
        left -= position - at
        if mends is not None and data[at:position].strip(b"\xff"):
            mends.append((at, position, b""))
        marker = data[position + 1]
        start = end = position + 2
        if marker not in _STANDALONE and marker != EOI:
            if start + 2 > len(data):
                raise _cut(data)
            # A length counts its own two bytes: what says less than 2 has no body.
            start += 2
            end = max(start, start - 2 + int.from_bytes(data[start - 2 : start], "big"))
            if end > len(data):
                raise _cut(data)
        yield marker, position, start, end
        at = end
    raise TooManyPixelsError(
        f"the JPEG has more than {MAX_SEGMENTS:,} segments before its first scan"
    )


def _whole_scans(data: bytes, first: int, names: bytes, scans: int) -> Iterator[_Mend]:
    """Yields what makes sequential scans say that they hold the whole of their components.

    Decoders do not need these fields: no other values are valid, and telephones write anything.

    Args:
        data: the whole file.
        first: where its first scan begins.
        names: identifiers of the frame's components.
        scans: how many there may be.
    """
    position = first
    for _ in range(scans):
        if position < 0:
            return
        components = data[position + 4 : position + 5]
        count = components[0] if components else 0
        end = position + 8 + 2 * count
        head = data[position + 2 : end]
        if (
            len(head) == 6 + 2 * count
            and head[:2] == (6 + 2 * count).to_bytes(2, "big")
            and all(name in names for name in head[3:-3:2])
            and head[-3:] != _WHOLE_SCAN
        ):
            yield end - 3, end, _WHOLE_SCAN
        position = data.find(b"\xff\xda", position + 2)


def _mended(data: bytes, mends: list[_Mend]) -> bytes:
    """Returns the file with some of its bytes replaced."""
    if not mends:
        return data
    whole = memoryview(data)
    parts: list[bytes | memoryview] = []
    at = 0
    for start, end, instead in sorted(mends):
        parts += (whole[at:start], instead)
        at = end
    return b"".join((*parts, whole[at:]))


def _cut(data: bytes) -> TruncatedPictureError:
    return TruncatedPictureError(
        f"the JPEG is truncated: its {len(data):,} bytes end within the header"
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    marker: int
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]
    names: bytes


def _frame(marker: int, body: memoryview) -> _Frame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise DamagedPictureError("the JPEG's header is damaged: its frame has a wrong length")
    precision, height, width, components = struct.unpack_from(">BHHB", body)
    if marker not in _SUPPORTED:
        raise UnsupportedPictureError(
            f"the JPEG is hierarchical or differential (SOF{marker - 0xC0}); expected baseline, "
            "progressive or lossless"
        )
    if precision != 8:
        raise UnsupportedPictureError(f"the JPEG has {precision} bits a sample; expected 8")
    if components not in (1, 3, 4):
        raise UnsupportedPictureError(
            f"the JPEG has {components} components; expected 1 (grey), 3 (colour) or 4 (CMYK)"
        )
    if not width or not height:
        raise DamagedPictureError(f"the JPEG is empty: {width} x {height} pixels by its header")
    sampling = tuple((factors >> 4, factors & 15) for factors in body[7::3])
    if not all(1 <= factor <= 4 for factors in sampling for factor in factors):
        raise DamagedPictureError("the JPEG's header is damaged: sampling factors are 1 to 4")
    return _Frame(marker, width, height, sampling, bytes(body[6::3]))
