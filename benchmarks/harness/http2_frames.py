"""The bytes of HTTP/2 frames and of what gRPC puts into them, right or wrong.

Source: RFC 9113; https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum, IntFlag

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: A window's size by default, and the largest that can be set, bytes.
USUAL_WINDOW, MOST_WINDOW = 2**16 - 1, 2**31 - 1
#: The most in one frame by default, bytes.
USUAL_FRAME = 2**14


class Kind(IntEnum):
    """Of a frame."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Of a frame; ACK is of SETTINGS and PING."""

    NONE = 0
    END_STREAM = 1
    ACK = 1
    END_HEADERS = 4


class Setting(IntEnum):
    """What a side tells of itself."""

    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Why a stream is reset or a connection goes away, as far as it is met here."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


def message(payload: bytes, *, compressed: bool = False, size: int | None = None) -> bytes:
    """A gRPC message.

    Args:
        payload: bytes of it.
        compressed: what it says of itself.
        size: how long it says that it is; None: as it is.
    """
    return struct.pack(">BI", compressed, len(payload) if size is None else size) + payload


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of any kind and content."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def call_fields(path: str) -> list[tuple[str, str]]:
    """The header fields of a good call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


def open_window(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(Kind.WINDOW_UPDATE, stream=stream, payload=struct.pack(">I", size))


def reset(stream: int, code: int = Code.CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, stream=stream, payload=struct.pack(">I", code))


def settings_frame(settings: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    pairs = (struct.pack(">HI", *pair) for pair in settings.items())
    return frame(Kind.SETTINGS, payload=b"".join(pairs))
