"""One HTTP/2 connection that sends any frames, valid or not, and keeps what came back.

Clients of gRPC keep the rules; this one is for finding out what a server does when they are broken.

Source: RFC 9113; https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import contextlib
import itertools
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Self

from hpack import Decoder, Encoder

from benchmarks.harness.http2_frames import (
    MOST_WINDOW,
    PREFACE,
    USUAL_FRAME,
    USUAL_WINDOW,
    Flag,
    Kind,
    Setting,
    call_fields,
    frame,
    message,
    open_window,
    settings_frame,
)

Fields = Sequence[tuple[str, str]]


class Timeout(Exception):
    """What was waited for has not come."""


@dataclass
class Answer:
    """What has come on a stream so far.

    Attributes:
        headers: fields of all its HEADERS together, so those of the trailers too.
        data: of all its DATA.
        ended: the server has announced that nothing more comes.
        reset: the error code of a RST_STREAM.
    """

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The gRPC status; None if there is none."""
        text = self.headers.get("grpc-status")
        return None if text is None else int(text)


class RawConnection:
    """A connection over which a thread reads all the time.

    Args:
        address: of a server, host:port.
        settings: that are sent; INITIAL_WINDOW_SIZE is as large as it can be by default.
        wait_s: longest wait for anything.
    """

    def __init__(
        self, address: str, settings: Mapping[int, int] | None = None, wait_s: float = 60.0
    ) -> None:
        host, _, port = address.rpartition(":")
        self._wait_s = wait_s
        self._socket = socket.create_connection((host, int(port)), wait_s)
        # For sending alone: nothing may come for any time.
        self._socket.settimeout(None)
        timeout = struct.pack("ll", int(wait_s), 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._encoder, self._decoder = Encoder(), Decoder()
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._opened: defaultdict[int, int] = defaultdict(int)
        self._numbers = itertools.count(1, 2)
        #: Bytes that were sent, of everything.
        self.sent_bytes = 0
        #: By stream.
        self.answers: defaultdict[int, Answer] = defaultdict(Answer)
        #: The server's settings.
        self.settings: dict[int, int] = {}
        #: The last stream that it will answer, and an error code, of each GOAWAY.
        self.goaways: list[tuple[int, int]] = []
        #: Answers to pings.
        self.pongs = 0
        #: The server has closed it.
        self.closed = False
        self._reader = threading.Thread(target=self._read, name="raw HTTP/2", daemon=True)
        ours = {Setting.INITIAL_WINDOW_SIZE: MOST_WINDOW, **(settings or {})}
        self.send(PREFACE + settings_frame(ours) + open_window(0, MOST_WINDOW - USUAL_WINDOW))
        # Not before: what it answers to must come after the preface.
        self._reader.start()
        self.wait(lambda: bool(self.settings) or self.closed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it, whatever the server thinks."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises:
            OSError: if the server has closed the connection, or reads nothing.
        """
        with self._sending:
            self._socket.sendall(data)
            self.sent_bytes += len(data)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something has come that makes a condition true.

        Raises:
            Timeout: if it does not come.
        """
        with self._changed:
            if not self._changed.wait_for(condition, self._wait_s):
                raise Timeout(f"after {self._wait_s:g} s: {dict(self.answers)}, {self.goaways}")

    def new_stream(self) -> int:
        """The next number of a stream."""
        return next(self._numbers)

    def headers(
        self, fields: Sequence[tuple[str, str]], stream: int, *, end: bool = False
    ) -> bytes:
        """A HEADERS frame; what comes of encoding is for this connection and this order only."""
        flags = Flag.END_HEADERS | (Flag.END_STREAM if end else Flag.NONE)
        return frame(Kind.HEADERS, flags, stream, self._encoder.encode(fields))

    def ask(self, payload: bytes, path: str, *, end: bool = True) -> int:
        """Send a whole call, or all but its end; returns its stream."""
        stream = self.new_stream()
        self.send(self.headers(call_fields(path), stream))
        self.data(message(payload), stream, end=end)
        return stream

    def data(self, payload: bytes, stream: int, *, end: bool = False) -> None:
        """Send bytes as DATA, as the server's windows open; nothing more once it has ended.

        Raises:
            Timeout: if they do not open.
            OSError: as send.
        """
        left = memoryview(payload)
        while left:
            self.wait(lambda: self.window_left(stream) > 0 or self.is_over(stream))
            if self.is_over(stream):
                return
            part = left[: min(USUAL_FRAME, self.window_left(stream))]
            left = left[len(part) :]
            for each in (0, stream):
                self._sent[each] += len(part)
            self.send(frame(Kind.DATA, stream=stream, payload=bytes(part)))
        if end:
            self.send(frame(Kind.DATA, Flag.END_STREAM, stream))

    def answer(self, stream: int) -> Answer:
        """Wait for the end of a stream, one way or another.

        Raises:
            Timeout: if it does not end.
        """
        self.wait(lambda: self.is_over(stream))
        return self.answers[stream]

    def is_over(self, stream: int) -> bool:
        """Whether nothing more comes on a stream."""
        answer = self.answers[stream]
        return answer.ended or answer.reset is not None or self.closed

    def window_left(self, stream: int) -> int:
        """Bytes that the server's windows let be sent on a stream now."""
        usual = self.settings.get(Setting.INITIAL_WINDOW_SIZE, USUAL_WINDOW)
        return min(
            USUAL_WINDOW + self._opened[0] - self._sent[0],
            usual + self._opened[stream] - self._sent[stream],
        )

    def _read(self) -> None:
        """Take frames until there are no more."""
        with contextlib.suppress(OSError, EOFError), self._socket.makefile("rb") as file:
            while True:
                head = _exactly(file, 9)
                size = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = _exactly(file, size)
                while kind == Kind.HEADERS and not flags & Flag.END_HEADERS:
                    more = _exactly(file, 9)
                    payload += _exactly(file, int.from_bytes(more[:3], "big"))
                    flags |= more[4] & Flag.END_HEADERS
                with self._changed:
                    self._take(kind, flags, stream, payload)
                    self._changed.notify_all()
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == Kind.SETTINGS and not flags & Flag.ACK:
            self.settings.update(struct.iter_unpack(">HI", payload))
            self._reply(frame(Kind.SETTINGS, Flag.ACK))
        elif kind == Kind.PING and flags & Flag.ACK:
            self.pongs += 1
        elif kind == Kind.PING:
            self._reply(frame(Kind.PING, Flag.ACK, payload=payload))
        elif kind == Kind.GOAWAY:
            self.goaways.append(struct.unpack(">II", payload[:8]))
        elif kind == Kind.WINDOW_UPDATE:
            self._opened[stream] += int.from_bytes(payload, "big")
        elif kind in (Kind.DATA, Kind.HEADERS, Kind.RST_STREAM):
            self._take_answer(self.answers[stream], kind, flags, payload)

    def _take_answer(self, answer: Answer, kind: int, flags: int, payload: bytes) -> None:
        """What is for one stream; no server of ours pads."""
        if kind == Kind.RST_STREAM:
            # The first says why; others may answer what was on its way.
            if answer.reset is None:
                answer.reset = int.from_bytes(payload, "big")
        elif kind == Kind.DATA:
            answer.data += payload
        else:
            answer.headers.update(
                (str(key), str(value)) for key, value in self._decoder.decode(payload)
            )
        if kind != Kind.RST_STREAM and flags & Flag.END_STREAM:
            answer.ended = True

    def _reply(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send(data)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
