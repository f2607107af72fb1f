"""A connection of HTTP/2 that makes the same few calls again and again, without its socket.

It knows what such a client meets: settings, flow control both ways, pings, streams that are reset,
a server that goes away. Nothing else is ever sent to it, and it refuses what is.

Source: RFC 9113, sections 4 to 6 and 8.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice

from convserve_bench import frames, header_blocks
from convserve_bench.flow_control import FlowControl
from convserve_bench.header_blocks import Field
from convserve_bench.outcomes import Ended, Status, read_head, read_trailers, reset

#: Blocks whose meaning is kept; messages may differ in every reply.
_MOST_BLOCKS = 1024
#: The server may send so much before it must wait for us; renewed at half of it.
_WINDOW = frames.LARGEST_WINDOW
_STREAM_ID = struct.Struct(">L").pack
_LARGEST_LEAD = 2**24 - 1
_PLAIN_END = frames.END_HEADERS | frames.END_STREAM


class ProtocolError(Exception):
    """The server did what HTTP/2 does not allow, or what this client does not know.

    Attributes:
        code: The error code to send.
        ended: Calls that were over before it did, and not given out yet.
    """

    def __init__(self, message: str, code: int = frames.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code
        self.ended: list[Ended] = []


class Connection:
    """The client's side of one connection; bytes go in by feed, and out by out.

    Attributes:
        out: What is to be sent, in its order; the owner empties it.
        ready: The server's settings are here; no call starts before.
        going_away: No call may be started any more.
        unprocessed: When calls were started that the server says it never processed; the owner
            empties it.
    """

    def __init__(
        self, fields: Sequence[Field], messages: Sequence[bytes], first: int = 0, last: int = 0
    ) -> None:
        """Opens the connection: its first bytes are in out.

        Args:
            fields: Headers of each call.
            messages: Of gRPC, each with its head of 5 bytes; sent in turn.
            first: Number of the message to begin with.
            last: Largest number of a stream that is used; 0: the largest that there is.
        """
        ours = {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: _WINDOW,
        }
        more = _WINDOW - frames.DEFAULT_WINDOW
        self.out: list[bytes | memoryview] = [
            frames.PREFACE,
            frames.settings(ours),
            frames.window_update(0, more),
        ]
        self.ready = False
        self.going_away = False
        self.unprocessed: list[float] = []
        self._fields = fields
        # The heads are for messages that fit into one frame, and not used for others.
        sizes = [min(len(message), _LARGEST_LEAD) for message in messages]
        leads = [frames.lead(frames.DATA, frames.END_STREAM, size) for size in sizes]
        self._messages: Iterator[tuple[bytes, bytes]] = islice(
            cycle([*zip(leads, messages, strict=True)]), first % len(messages), None
        )
        self._next = 1
        self._last = last or frames.LARGEST_STREAM
        self._streams: dict[int, float] = {}
        self._bodies: dict[int, bytes] = {}
        self._tail = b""
        self._statuses: dict[bytes, Status] = {}
        # By grpc-status, where blocks differ: of each the first one's, with its message.
        self._by_number: dict[bytes, Status] = {}
        self._heads: set[bytes] = set()
        self._unfinished: tuple[int, int, bytes] | None = None
        self._block, self._later = header_blocks.encode(fields, header_blocks.DEFAULT_TABLE_BYTES)
        self._limit = frames.LARGEST_STREAM
        self._flow = FlowControl(self.out)
        self._received = 0

    @property
    def in_flight(self) -> int:
        """Calls that are not over."""
        return len(self._streams)

    @property
    def capacity(self) -> int:
        """Calls that may be started now."""
        if not self.ready or self.going_away:
            return 0
        return self._limit - len(self._streams)

    @property
    def next_stream(self) -> int:
        """The number that the next call will have: all that were started have lower ones."""
        return self._next

    def start(self, starts: Iterable[float]) -> None:
        """Starts a call for each moment given, at most as many as `capacity` says.

        Args:
            starts: From when each is counted; given back when the call is over.
        """
        out = self.out
        streams = self._streams
        for started in starts:
            stream = self._next
            self._next = stream + 2
            streams[stream] = started
            number = _STREAM_ID(stream)
            block = self._block
            out += (frames.lead(frames.HEADERS, frames.END_HEADERS, len(block)), number, block)
            self._block = self._later
            lead, message = next(self._messages)
            if self._flow.reserve(len(message)):
                out += (lead, number, message)
            else:
                self._flow.hold(stream, message)
        if self._next > self._last:
            self.going_away = True

    def feed(self, data: bytes) -> list[Ended]:
        """Reads what the server sent, in pieces of any size, and returns the calls that are over.

        Raises:
            ProtocolError: The connection cannot be used any more.
        """
        ended: list[Ended] = []
        try:
            self._read(self._tail + data if self._tail else data, ended)
        except struct.error as error:
            wrong = ProtocolError("a frame has a wrong size", frames.FRAME_SIZE_ERROR)
            wrong.ended = ended
            raise wrong from error
        except ProtocolError as error:
            error.ended = ended
            raise
        if self._received > _WINDOW // 2:
            self.out.append(frames.window_update(0, self._received))
            self._received = 0
        return ended

    def expire(self, before: int) -> list[float]:
        """Gives up the calls on streams below a number; returns when they were started."""
        late = [stream for stream in self._streams if stream < before]
        self.out += [frames.rst_stream(stream, frames.CANCEL) for stream in late]
        return [self._forget(stream) for stream in late]

    def lost(self) -> list[float]:
        """Gives up all calls, whose connection is gone; returns when they were started."""
        return [self._forget(stream) for stream in [*self._streams]]

    def _read(self, data: bytes, ended: list[Ended]) -> None:
        streams, bodies, statuses = self._streams, self._bodies, self._statuses
        at, size = 0, len(data)
        while size - at >= frames.HEAD_BYTES:
            upper, lower, kind, flags, stream = frames.HEAD.unpack_from(data, at)
            end = at + frames.HEAD_BYTES + lower
            if upper or lower > frames.DEFAULT_FRAME_BYTES:
                raise ProtocolError("a frame is too large", frames.FRAME_SIZE_ERROR)
            if end > size:
                break
            payload = data[at + frames.HEAD_BYTES : end]
            at = end
            # The three frames of a usual reply first; everything else is rare.
            if kind == frames.DATA and not flags and self._unfinished is None:
                self._received += lower
                if stream in streams:
                    bodies[stream] = bodies[stream] + payload if stream in bodies else payload
            elif kind == frames.HEADERS and flags == _PLAIN_END and payload in statuses:
                if stream in streams:
                    ended.append(
                        Ended(streams.pop(stream), statuses[payload], bodies.pop(stream, b"")[5:])
                    )
            elif (
                kind != frames.HEADERS or flags != frames.END_HEADERS or payload not in self._heads
            ):
                self._rare(kind, flags, stream & frames.LARGEST_STREAM, payload, ended)
        self._tail = data[at:]

    def _forget(self, stream: int) -> float:
        self._bodies.pop(stream, None)
        self._flow.forget(stream)
        return self._streams.pop(stream)

    def _end(self, stream: int, status: Status, ended: list[Ended]) -> None:
        if stream in self._streams:
            reply = self._bodies.get(stream, b"")[5:]
            ended.append(Ended(self._forget(stream), status, reply))

    def _rare(self, kind: int, flags: int, stream: int, payload: bytes, ended: list[Ended]) -> None:
        if self._unfinished is not None and kind != frames.CONTINUATION:
            raise ProtocolError("a header block was interrupted")
        if kind == frames.DATA:
            self._received += len(payload)
            if flags & frames.PADDED:
                payload = _unpadded(payload)
            if stream in self._streams:
                self._bodies[stream] = self._bodies.get(stream, b"") + payload
            if flags & frames.END_STREAM:
                self._end(stream, read_trailers([(b":status", b"200")]), ended)
        elif kind == frames.HEADERS:
            if flags & frames.PADDED:
                payload = _unpadded(payload)
            if flags & frames.WITH_PRIORITY:
                payload = payload[5:]
            self._unfinished = (stream, flags, payload)
            self._finish_block(flags, ended)
        elif kind == frames.CONTINUATION:
            if self._unfinished is None or self._unfinished[0] != stream:
                raise ProtocolError("a header block was continued that was not begun")
            self._unfinished = (*self._unfinished[:2], self._unfinished[2] + payload)
            self._finish_block(flags, ended)
        elif kind == frames.RST_STREAM:
            self._end(stream, reset(struct.unpack(">L", payload)[0]), ended)
        elif kind == frames.SETTINGS:
            if not flags & frames.ACK:
                self._settle(frames.read_settings(payload))
        elif kind == frames.PING:
            if not flags & frames.ACK:
                self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE:
            if not self._flow.widen(stream, frames.number(payload)):
                raise ProtocolError("a window is too large", frames.FLOW_CONTROL_ERROR)
        elif kind == frames.GOAWAY:
            self._go_away(frames.number(payload[:4]))
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError("the server pushes, which the settings forbid")

    def _finish_block(self, flags: int, ended: list[Ended]) -> None:
        if not flags & frames.END_HEADERS or self._unfinished is None:
            return
        stream, first_flags, block = self._unfinished
        self._unfinished = None
        number = header_blocks.status_number(block) if first_flags & frames.END_STREAM else None
        if number in self._by_number:
            self._end(stream, self._by_number[number], ended)
            return
        try:
            fields = header_blocks.decode(block)
        except ValueError as error:
            raise ProtocolError(str(error), frames.COMPRESSION_ERROR) from error
        if len(self._statuses) + len(self._heads) >= _MOST_BLOCKS:
            self._statuses.clear()
            self._heads.clear()
        if first_flags & frames.END_STREAM:
            status = self._statuses[block] = read_trailers(fields)
            if number is not None:
                self._by_number[number] = status
            self._end(stream, status, ended)
        elif (wrong := read_head(fields)) is None:
            self._heads.add(block)
        else:
            self.out.append(frames.rst_stream(stream, frames.CANCEL))
            self._end(stream, wrong, ended)

    def _settle(self, values: list[tuple[int, int]]) -> None:
        for key, value in values:
            if key == frames.HEADER_TABLE_SIZE:
                self._block, self._later = header_blocks.encode(self._fields, value)
            elif key == frames.MAX_CONCURRENT_STREAMS:
                self._limit = value
            elif key == frames.INITIAL_WINDOW_SIZE:
                self._flow.resize(value)
            elif key == frames.MAX_FRAME_SIZE:
                self._flow.frame_bytes = value
        self.out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self.ready = True

    def _go_away(self, last: int) -> None:
        self.going_away = True
        beyond = [stream for stream in self._streams if stream > last]
        self.unprocessed += [self._forget(stream) for stream in beyond]


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("a frame is padded with more than it holds")
    return payload[1 : len(payload) - payload[0]]
