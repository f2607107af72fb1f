"""What is wrong below the messages: requests of HTTP/2 that no gRPC library would send.

How they are refused (a status, a reset stream, the end of the connection) is for the server to say:
what counts is that they are within the limit, and that other connections are not harmed.

Sources: RFC 9113, 4 and 6 (frames); RFC 7541, 6.2.2 (header fields); gRPC's PROTOCOL-HTTP2.md.
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from functools import partial

from tests.conformance import messages
from tests.conformance.grpc_server import GrpcServer, raw_request
from tests.conformance.models import adder, sum_question
from tests.conformance.suite import Case, Violation

_SOURCE = "gRPC: PROTOCOL-HTTP2.md"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4
_STREAM = 1

_GOOD = {
    ":method": "POST",
    ":scheme": "http",
    ":path": messages.SERVICE + "ModelInfer",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
    # Some libraries leave a call without a message to its deadline.
    "grpc-timeout": "500m",
}


def cases() -> Iterator[Case[GrpcServer]]:
    """All of them."""
    for name, headers in [
        ("content type of another kind", {"content-type": "text/html"}),
        ("content type of JSON", {"content-type": "application/json"}),
        ("GET", {":method": "GET"}),
        ("a coding that does not exist", {"grpc-encoding": "middle-out"}),
        ("a deadline that is not one", {"grpc-timeout": "soon"}),
        ("a deadline below 0", {"grpc-timeout": "-1S"}),
    ]:
        yield Case("frames", name, _SOURCE, partial(other_headers, headers), malformed=True)
    for name, prefix in [
        ("a message longer than what comes", struct.pack(">BI", 0, 1000)),
        ("a message of 256 MiB", struct.pack(">BI", 0, 1 << 28)),
        ("a message compressed by nothing", struct.pack(">BI", 1, 8)),
        ("a flag that does not exist", struct.pack(">BI", 7, 8)),
        ("half a prefix", b"\0\0"),
        ("nothing", b""),
    ]:
        yield Case("frames", name, _SOURCE, partial(other_prefix, prefix), malformed=True)
    yield Case("frames", "two messages of one call", _SOURCE, two_messages, malformed=True)


def other_headers(headers: Mapping[str, str], server: GrpcServer) -> None:
    """A good message with headers that are not."""
    _refused(server, {**_GOOD, **headers}, _prefixed(_message(server)))


def other_prefix(prefix: bytes, server: GrpcServer) -> None:
    """Good headers, and a body that is not a message."""
    _refused(server, _GOOD, prefix + bytes(8) if len(prefix) == 5 else prefix)


def two_messages(server: GrpcServer) -> None:
    """A call of one message with two."""
    _refused(server, _GOOD, _prefixed(_message(server)) * 2)


def _message(server: GrpcServer) -> bytes:
    data: bytes = raw_request(sum_question(adder(server.models))).SerializeToString()
    return data


def _prefixed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _fields(headers: Mapping[str, str]) -> bytes:
    """Literal fields without indexing and without Huffman's code."""
    block = b""
    for name, value in headers.items():
        assert len(name) < 127, name
        assert len(value) < 127, value
        block += bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def _refused(server: GrpcServer, headers: Mapping[str, str], body: bytes) -> None:
    """Raises Violation unless the stream or the connection ends within the limit."""
    host, _, port = server.address.rpartition(":")
    request = (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _STREAM, _fields(headers))
        + _frame(_DATA, _END_STREAM, _STREAM, body)
    )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), server.limit_s) as connection:
            connection.sendall(request)
            received = b""
            while not _ended(received):
                chunk = connection.recv(65536)
                if not chunk:
                    return
                received += chunk
    except TimeoutError as error:
        raise Violation(
            f"stream: expected its end within {server.limit_s:g} s, got none"
        ) from error
    except ConnectionError:
        return  # Ended by a reset.


def _ended(received: bytes) -> bool:
    """Whether frames of a server end the stream, or the connection."""
    offset = 0
    while offset + 9 <= len(received):
        length = int.from_bytes(received[offset : offset + 3])
        kind, flags, stream = struct.unpack_from(">BBI", received, offset + 3)
        if kind == _GOAWAY or (stream == _STREAM and kind == _RESET):
            return True
        if stream == _STREAM and kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            return True
        offset += 9 + length
    return False
