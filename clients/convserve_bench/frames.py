"""Frames of HTTP/2: their numbers, and how each that is sent is written.

Source: RFC 9113, sections 3.4, 4.1, 6 and 7.
"""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0, 1, 3, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 7, 8, 9
ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 11, 12

HEAD_BYTES = 9
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = LARGEST_STREAM = 2**31 - 1
DEFAULT_FRAME_BYTES = 16_384

HEAD = struct.Struct(">BHBBL")
"""Length (its upper byte, its lower two), type, flags, stream."""

_SETTING = struct.Struct(">HL")
_NUMBER = struct.Struct(">L")


def lead(kind: int, flags: int, length: int) -> bytes:
    """Returns the head of a frame without the number of its stream: 5 bytes."""
    return length.to_bytes(3, "big") + bytes((kind, flags))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns a whole frame."""
    return lead(kind, flags, len(payload)) + stream.to_bytes(4, "big") + payload


def settings(values: dict[int, int]) -> bytes:
    """Returns the frame with our settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Returns the settings of a frame, in their order.

    Raises:
        struct.error: The frame does not hold whole settings.
    """
    return [(key, value) for key, value in _SETTING.iter_unpack(payload)]


def window_update(stream: int, more: int) -> bytes:
    """Returns the frame that allows the peer to send more bytes."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(more))


def rst_stream(stream: int, code: int) -> bytes:
    """Returns the frame that ends a stream before its time."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(code: int) -> bytes:
    """Returns the frame that ends a connection; no stream of the peer's was processed."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(0) + _NUMBER.pack(code))


def number(payload: bytes) -> int:
    """Returns the number that a frame holds, its reserved upper bit left out.

    Raises:
        struct.error: It does not hold one.
    """
    value: int = _NUMBER.unpack(payload)[0]
    return value & LARGEST_STREAM
