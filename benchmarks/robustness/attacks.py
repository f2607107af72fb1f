"""What a client may send that costs a server more memory than it costs the client to send.

Each is bounded by itself: so many connections, streams and bytes, of which nothing is sent twice.
"""

import contextlib
import functools
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.harness.answers import CLASSIFY
from benchmarks.harness.http2_frames import Flag, Kind, Setting, call_fields, frame, message, reset
from benchmarks.harness.raw_http2 import RawConnection, Timeout

_MIB = 2**20
_STREAM = "/convserve.v1.Classifier/StreamClassify"
_LIST_MODELS = "/convserve.v1.Classifier/ListModels"
#: A server that opens no window for so long, or reads nothing, will not, s.
_PATIENCE_S = 1.0
#: As many as every front accepts on one connection.
_STREAMS = 4096
#: Nothing may be answered on any stream.
_SHUT = ((Setting.INITIAL_WINDOW_SIZE, 0),)


@dataclass(frozen=True)
class Attack:
    """What is sent over each of some connections, which then stay open for a while.

    Args:
        name: for the table.
        connections: that do the same at once.
        send: over one of them; returns when all is sent.
        settings: of HTTP/2, sent to the server.
        patience_s: longest wait for the server, as for an answer.
        prepare: makes what is sent, before there is any connection.
        held_s: how long the connections then stay open.
        leaves: whether others are watched for as long again when they have been closed.
    """

    name: str
    connections: int
    send: Callable[[RawConnection], None]
    settings: tuple[tuple[int, int], ...] = ()
    patience_s: float = _PATIENCE_S
    prepare: Callable[[], object] = bytes
    held_s: float = 1.0
    leaves: bool = False

    def begin(self, address: str, stack: contextlib.ExitStack) -> list[RawConnection]:
        """Send everything, as far as the server accepts it; the stack closes the connections."""
        self.prepare()
        settings = dict(self.settings)
        opened = [
            stack.enter_context(RawConnection(address, settings, self.patience_s))
            for _ in range(self.connections)
        ]
        senders = [threading.Thread(target=self._send, args=(each,)) for each in opened]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        return opened

    def _send(self, connection: RawConnection) -> None:
        with contextlib.suppress(OSError, Timeout):
            self.send(connection)


def attacks(limit: int) -> list[Attack]:
    """All of them.

    Args:
        limit: largest message that the server accepts, bytes.
    """
    partly, parts = _parts(limit - 2**16), 64
    return [
        Attack("none", 1, lambda _: None),
        Attack("a message of 64 MiB", 1, _message(64 * _MIB)),
        Attack("a message of 256 MiB", 1, _message(256 * _MIB)),
        Attack("8 connections, 64 MiB in one message each", 8, _message(64 * _MIB)),
        Attack(f"{parts} messages just under the limit, unfinished", 1, partly(parts)),
        Attack(f"the same {parts}, over 8 connections", 8, partly(parts // 8)),
        Attack("512 MiB of zeros as gzip", 1, _zipped, prepare=_zeros_as_gzip),
        Attack("8 connections, 512 MiB of zeros as gzip each", 8, _zipped, prepare=_zeros_as_gzip),
        Attack("4,096 calls that announce 4 GiB", 1, _announced),
        Attack("8 connections, 4,096 such calls each", 8, _announced),
        Attack("8 connections, 4,096 calls each, with headers of 14 KiB by numbers", 8, _indexed),
        Attack("8 connections, 4,096 answers each that are not read", 8, _unread, _SHUT),
        Attack(
            "one stream of 50,000 empty requests, answers not read, left after 10 s",
            1,
            _stream,
            _SHUT,
            10.0,
            held_s=10.0,
            leaves=True,
        ),
        Attack("1,000,000 pings", 1, _pings),
        Attack("50,000 calls that are reset at once", 1, _resets),
        Attack("1,000 connections, nothing sent", 1000, lambda _: None),
    ]


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
def _zeros_as_gzip() -> bytes:
    """512 MiB of zeros, a thousandth of their size on the way."""
    squeeze = zlib.compressobj(9, wbits=31)
    return b"".join(squeeze.compress(bytes(_MIB)) for _ in range(512)) + squeeze.flush()


def _zipped(connection: RawConnection) -> None:
    stream = _start(connection, ("grpc-encoding", "gzip"))
    connection.data(message(_zeros_as_gzip(), compressed=True), stream, end=True)


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
