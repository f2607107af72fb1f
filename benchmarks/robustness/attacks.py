"""What a client may send over gRPC that costs a server more than it costs the client to send.

Each is bounded by itself: so many connections, streams and bytes, of which nothing is sent twice.
"""

import functools
import socket
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from benchmarks.harness.answers import CLASSIFY
from benchmarks.harness.http2_frames import (
    PREFACE,
    Flag,
    Kind,
    Setting,
    call_fields,
    frame,
    message,
    reset,
)
from benchmarks.harness.raw_http2 import RawConnection
from benchmarks.robustness.attack import PATIENCE_S, Attack

_MIB = 2**20
_STREAM = "/convserve.v1.Classifier/StreamClassify"
_LIST_MODELS = "/convserve.v1.Classifier/ListModels"
#: As many as every front accepts on one connection.
_STREAMS = 4096
#: Nothing may be answered on any stream.
_SHUT = ((Setting.INITIAL_WINDOW_SIZE, 0),)
_STATUS = {code.value[0]: code.name for code in grpc.StatusCode}

#: What each attack may take, MiB: buffers, and what malloc keeps; with as many bytes of messages
#: as may be received (64 MiB by the flags of the benchmark), which are copied once they are whole;
#: and of what is decoded: 256 MiB for one image, and the queue.
FEW, RECEIVED, DECODED = 64, 192, 512


class GrpcAttacker(RawConnection):
    """See Attacker."""

    def statuses(self) -> list[str]:
        """See Attacker.statuses."""
        found = [answer.status for answer in [*self.answers.values()]]
        return [_STATUS.get(status, str(status)) for status in found if status is not None]


class SilentAttacker:
    """See Attacker; it waits for nothing that the server sends."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.sent_bytes = 0
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)

    def send(self, data: bytes) -> None:
        """Sends bytes as they are.

        Raises:
            OSError: if the server has closed the connection, or reads nothing.
        """
        self._socket.sendall(data)
        self.sent_bytes += len(data)

    def statuses(self) -> list[str]:
        """See Attacker.statuses."""
        return []

    def close(self) -> None:
        """See Attacker.close."""
        self._socket.close()


def over_grpc(
    name: str,
    connections: int,
    send: Callable[[Any], None],
    most_mib: int,
    *,
    settings: tuple[tuple[int, int], ...] = (),
    patience_s: float = PATIENCE_S,
    **more: Any,
) -> Attack:
    """Returns an attack over gRPC.

    Args:
        name: see Attack.
        connections: see Attack.
        send: see Attack.
        most_mib: see Attack.
        settings: of HTTP/2, sent to the server.
        patience_s: longest wait for the server, as for an answer.
        more: see Attack.
    """

    def open_(address: str) -> GrpcAttacker:
        return GrpcAttacker(address, dict(settings), patience_s)

    return Attack(name, "grpc", connections, open_, send, most_mib, **more)


def attacks(limit: int) -> list[Attack]:
    """All of them.

    Args:
        limit: largest message that the server accepts, bytes.
    """
    partly, parts, new = _parts(limit - 2**16), 64, over_grpc
    zeros: dict[str, Any] = {"prepare": zeros_as_gzip}
    stream = "one stream of 50,000 empty requests, answers not read, left after 10 s"
    read: dict[str, Any] = {"settings": _SHUT, "patience_s": 10.0, "held_s": 10.0, "leaves": True}
    return [
        new("none", 1, lambda _: None, FEW),
        new("a message of 64 MiB", 1, _message(64 * _MIB), RECEIVED),
        new("a message of 256 MiB", 1, _message(256 * _MIB), RECEIVED),
        new("8 connections, 64 MiB in one message each", 8, _message(64 * _MIB), RECEIVED),
        new(f"{parts} messages just under the limit, unfinished", 1, partly(parts), RECEIVED),
        new(f"the same {parts}, over 8 connections", 8, partly(parts // 8), RECEIVED),
        new("512 MiB of zeros as gzip", 1, _zipped, RECEIVED, **zeros),
        new("8 connections, 512 MiB of zeros as gzip each", 8, _zipped, RECEIVED, **zeros),
        new("4,096 calls that announce 4 GiB", 1, _announced, RECEIVED),
        new("8 connections, 4,096 such calls each", 8, _announced, RECEIVED),
        new("1,000 messages of 1 KiB at 20 bytes a second", 1, _slow, RECEIVED),
        new("8 connections, 4,096 calls each, with headers of 14 KiB by numbers", 8, _indexed, 512),
        new("8 connections, 4,096 answers each that are not read", 8, _unread, RECEIVED,
            settings=_SHUT),
        new(stream, 1, _stream, RECEIVED, **read),
        new("1,000,000 pings", 1, _pings, FEW),
        new("1,000,000 empty settings", 1, _settings, FEW),
        new("1,000,000 empty parts of a message", 1, _empty_data, FEW),
        new("a head of 64 MiB in 65,536 parts", 1, _continuation, FEW),
        new("50,000 calls that are reset at once", 1, _resets, FEW),
        new("1,000 connections, nothing sent", 1000, lambda _: None, 128),
        Attack("2,000 connections, half of the preface sent", "grpc", 2000, SilentAttacker,
               _half_preface, 128),
    ]  # fmt: skip


def _start(connection: RawConnection, *more: tuple[str, str]) -> int:
    """Begin a call; returns its stream."""
    stream = connection.new_stream()
    connection.send(connection.headers([*call_fields(CLASSIFY), *more], stream))
    return stream


def _message(size: int) -> Callable[[RawConnection], None]:
    """One whole message."""

    def send(connection: RawConnection) -> None:
        _fill(connection, [_start(connection)], message(b"", size=size), size, end=True)

    return send


def _parts(size: int) -> Callable[[int], Callable[[RawConnection], None]]:
    """Messages that lack their last byte, on streams of one connection."""

    def on(streams: int) -> Callable[[RawConnection], None]:
        def send(connection: RawConnection) -> None:
            started = [_start(connection) for _ in range(streams)]
            _fill(connection, started, message(b"", size=size + 1), size)

        return send

    return on


def _fill(
    connection: RawConnection, streams: Sequence[int], head: bytes, size: int, *, end: bool = False
) -> None:
    """Send so many zeros on each stream, in turn, as the windows open."""
    left = dict.fromkeys(streams, size)
    for stream in streams:
        connection.data(head, stream)
    while left:
        connection.wait(
            lambda: connection.closed or any(connection.window_left(one) > 0 for one in left)
        )
        if connection.closed:
            return
        for stream in [*left]:
            part = min(left[stream], max(0, connection.window_left(stream)), _MIB)
            connection.data(bytes(part), stream)
            left[stream] -= part
            # Answered already: what is sent now is thrown away.
            if not left[stream] or connection.is_over(stream):
                del left[stream]
                if end:
                    connection.send(frame(Kind.DATA, Flag.END_STREAM, stream))


@functools.cache
def zeros_as_gzip() -> bytes:
    """512 MiB of zeros, a thousandth of their size on the way."""
    squeeze = zlib.compressobj(9, wbits=31)
    return b"".join(squeeze.compress(bytes(_MIB)) for _ in range(512)) + squeeze.flush()


def _zipped(connection: RawConnection) -> None:
    stream = _start(connection, ("grpc-encoding", "gzip"))
    connection.data(message(zeros_as_gzip(), compressed=True), stream, end=True)


def _announced(connection: RawConnection) -> None:
    """Five bytes on every stream, that promise the largest message."""
    for _ in range(_STREAMS):
        connection.data(message(b"", size=2**32 - 1), _start(connection))


def _indexed(connection: RawConnection) -> None:
    """A field of 2 KiB sent once, then named by its number, seven times in each call."""
    field = ("x", "a" * 2000)
    for _ in range(_STREAMS):
        _start(connection, *[field] * 7)


def _unread(connection: RawConnection) -> None:
    """Calls with large answers, on a connection whose windows stay shut."""
    for _ in range(_STREAMS):
        connection.ask(b"", _LIST_MODELS)


def _stream(connection: RawConnection) -> None:
    """Messages of five bytes, each with an answer, on a stream whose window stays shut."""
    stream = connection.new_stream()
    connection.send(connection.headers(call_fields(_STREAM), stream))
    for _ in range(50):
        connection.data(message(b"") * 1000, stream)


def _pings(connection: RawConnection) -> None:
    for _ in range(1000):
        connection.send(frame(Kind.PING, payload=bytes(8)) * 1000)


def _resets(connection: RawConnection) -> None:
    for _ in range(50_000):
        stream = connection.new_stream()
        connection.send(connection.headers(call_fields(CLASSIFY), stream) + reset(stream))


def _slow(connection: RawConnection) -> None:
    """Messages of which a byte comes now and then."""
    streams = [_start(connection) for _ in range(1000)]
    for stream in streams:
        connection.data(message(b"", size=1024), stream)
    for _ in range(60):
        for stream in streams:
            connection.data(b"\0", stream)
        time.sleep(0.05)


def _settings(connection: RawConnection) -> None:
    for _ in range(1000):
        connection.send(frame(Kind.SETTINGS) * 1000)


def _empty_data(connection: RawConnection) -> None:
    stream = _start(connection)
    for _ in range(1000):
        connection.send(frame(Kind.DATA, stream=stream) * 1000)


def _continuation(connection: RawConnection) -> None:
    """The head of a call that does not end, of fields that are not indexed."""
    field = b"\0\x01x\x7f\xe9\x06" + b"a" * 1000
    connection.send(frame(Kind.HEADERS, 0, connection.new_stream(), field))
    for _ in range(1000):
        connection.send(frame(Kind.CONTINUATION, 0, 1, field) * 66)


def _half_preface(connection: SilentAttacker) -> None:
    connection.send(PREFACE[:12])
