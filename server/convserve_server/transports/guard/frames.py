"""Frames of HTTP/2 as bytes: those that a guard reads, and those that it makes.

Sources: RFC 9113 (HTTP/2); RFC 7541 (HPACK), sections 5 and 6.2; for the answer to a call that was
refused https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import base64
import struct
from enum import IntEnum
from urllib.parse import quote

from convserve_server.protocols.base import Failure, Metadata

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Head of a frame: its length and kind in one number, its flags, its stream.
HEAD = struct.Struct(">IBI")
#: Longest payload of a frame, bytes: RFC 9113, section 4.2, where no setting says otherwise.
MAX_PAYLOAD = 2**14

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = range(6)
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(6, 10)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8

#: The highest number of a stream.
LAST_STREAM = 2**31 - 1
#: `:status: 200`, from the static table.
_STATUS_200 = b"\x88"


class Code(IntEnum):
    """Why a stream is reset, or a connection ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FRAME_SIZE_ERROR = 6
    CANCEL = 8
    ENHANCE_YOUR_CALM = 11


class ProtocolFault(Exception):
    """A client breaks the rules or a limit, and its connection is ended; str() says how.

    Args:
        code: for the client.
        message: for people.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns a frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def reset(stream: int, code: Code) -> bytes:
    """Returns the frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def window(size: int) -> bytes:
    """Returns the frame that lets a client send so many more bytes on its connection."""
    return frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", size))


def ping(payload: bytes) -> bytes:
    """Returns a frame that the other side sends back; the payload is 8 bytes."""
    return frame(PING, 0, 0, payload)


def goaway(code: Code = Code.NO_ERROR, last: int = LAST_STREAM, why: str = "") -> bytes:
    """Returns the frame that asks a client to begin no more calls on its connection.

    Args:
        code: NO_ERROR if nothing is wrong.
        last: highest stream that is answered.
        why: for people.
    """
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + why.encode())


def answer(stream: int, fields: bytes) -> bytes:
    """Returns the answer to a call that failed: header fields alone."""
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, fields)


def fields_of(failure: Failure) -> bytes:
    """Returns the header fields of the answer to a call that failed.

    None of them goes into the table of fields that both ends keep, which is the worker's own.
    """
    fields: Metadata = (
        ("content-type", "application/grpc"),
        ("grpc-status", str(failure.code)),
        ("grpc-message", quote(failure.message, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~")),
        *failure.trailers,
    )
    return _STATUS_200 + b"".join(literal(name, value) for name, value in fields)


def literal(name: str, value: str | bytes, *, secret: bool = False) -> bytes:
    """Returns a header field that goes into no table of either end.

    Args:
        name: in lower case.
        value: text of ASCII, or the bytes of a field whose name ends in -bin.
        secret: whether no proxy may put it into one either.
    """
    text = base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode()
    return (b"\x10" if secret else b"\0") + _string(name.encode()) + _string(text)


def _string(text: bytes) -> bytes:
    """Returns a string as HPACK has it, not compressed; see RFC 7541, section 5.2."""
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    head, size = bytearray([127]), size - 127
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + text
