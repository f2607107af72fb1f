"""What passes between one client and one worker: HTTP/2 frames, watched without input or output.

All bytes pass as they are, but for a header field that each call gets (caller_field.py). Of a frame
only the head is read, and of the DATA of a request that is not whole yet the lengths of its
messages: never the header fields, whose compression has a state that both ends keep. So calls that
are refused here are answered with fields that do not change it, and the worker gets the reset of
a client that has given them up.

Most requests of this server come whole in two frames, HEADERS and DATA: they take the short way.
"""

import struct
from collections.abc import Callable

from convserve_server.core.errors import ServeError
from convserve_server.transports.guard import frames
from convserve_server.transports.guard.calls import OpenCalls
from convserve_server.transports.guard.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    LAST_STREAM,
    MAX_PAYLOAD,
    PADDED,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    WINDOW_UPDATE,
    Code,
    ProtocolFault,
)
from convserve_server.transports.guard.memory import RequestMemory
from convserve_server.transports.guard.messages import PREFIX, Request

#: Length of a gRPC message.
_SIZE = struct.Struct(">I")
#: Head and longest payload, as numbers of HEAD: all above is too long.
_TOO_LONG = (MAX_PAYLOAD + 1) << 8
#: Frames in which the header fields of one call may come: at most 16 KiB are used.
_MAX_HEADER_FRAMES = 4
#: Frames that ask for work and bring none, as PING: of a client so many at once, and a second.
_BURST, _FRAMES_A_SECOND = 10_000, 2_000
#: By which we know the answer to a PING of ours.
_OUR_PING = b"convserv"
#: Seconds for a client to answer it; after that, for calls that it had begun before.
_LEAVE_LOOKS, _LAST_LOOKS = 20, 2


class Exchange:
    """One client's connection.

    Args:
        caller_field: added to the header fields of each call; see caller_field.py.
        max_message_bytes: of a request.
        memory: of all connections.
        flush: sends what is to be sent; called where neither side has just sent something.
        refused: notes a call that is refused here.

    Attributes:
        to_worker, to_client: bytes to be sent, which the owner takes out.
        streams: calls that are not answered, by their stream.
    """

    def __init__(
        self,
        caller_field: bytes,
        max_message_bytes: int,
        memory: RequestMemory,
        flush: Callable[[], None],
        refused: Callable[[ServeError], None],
    ) -> None:
        self._flush = flush
        self.to_worker: list[bytes | memoryview] = []
        self.to_client: list[bytes | memoryview] = []
        # To the client, once the worker's frames leave a gap.
        self._ours: list[bytes] = []
        self._calls = OpenCalls(
            max_message_bytes, memory, self.to_worker, self._ours, self._send, refused
        )
        self.streams = self._calls.streams
        self._field = caller_field
        self._field_size = len(caller_field) << 8
        self._max_message_bytes = max_message_bytes
        self._last_stream = 0
        # From the client: the beginning of a frame; the stream whose header fields go on.
        self._rest = b""
        self._open_block = 0
        self._block: list[bytes] = []
        self._new_call = False
        self._allowance = float(_BURST)
        # To the client: what of a frame is to come, the beginning of a head, whether header fields
        # go on, and whether the worker has sent its first frame.
        self._to_come = 0
        self._head = b""
        self._fields_go_on = False
        self._greeted = False
        self._preface_seen = False
        self._leaving = self._heard = False
        self._looks_left = _LEAVE_LOOKS
        #: Whether the client was asked to begin no more calls, and has none left.
        self.ended = False

    # From the client

    def from_client(self, data: bytes) -> None:
        """Takes bytes of the client.

        Raises:
            ProtocolFault: the connection has to end.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._preface_seen:
            data = self._after_preface(data)
        out, streams, end = self.to_worker, self.streams, len(data)
        view = memoryview(data)
        limit, field_size = self._max_message_bytes, self._field_size
        start = at = 0
        while end - at >= 9:
            size_kind, flags, stream = HEAD.unpack_from(data, at)
            if size_kind >= _TOO_LONG:
                raise ProtocolFault(Code.FRAME_SIZE_ERROR, f"a frame of {size_kind >> 8} bytes")
            body = at + 9
            after = body + (size_kind >> 8)
            if after > end:
                break
            kind = size_kind & 0xFF
            if self._open_block and (kind != CONTINUATION or stream != self._open_block):
                raise ProtocolFault(Code.PROTOCOL_ERROR, "a frame within header fields")
            if kind == DATA and flags == END_STREAM and streams.get(stream) is False:
                size = after - body - PREFIX
                if _is_whole(data, body, size) and size <= limit:
                    streams[stream] = True
                    at = after
                    continue
            elif (
                kind == HEADERS
                and flags & (END_HEADERS | PADDED) == END_HEADERS
                and self._last_stream < stream <= LAST_STREAM
                and size_kind + field_size < _TOO_LONG
            ):
                if start < at:
                    out.append(view[start:at])
                out += (
                    HEAD.pack(size_kind + field_size, flags, stream),
                    view[body:after],
                    self._field,
                )
                self._last_stream = stream
                streams[stream] = flags & END_STREAM == END_STREAM
                start = at = after
                continue
            if start < at:
                out.append(view[start:at])
            start = at if self._passes(kind, flags, stream, view[body:after]) else after
            at = after
        if start < at:
            out.append(view[start:at])
        if at < end:
            self._rest = data[at:]
        self._calls.charge()
        if self._ours:
            self._fill_gap()

    def _after_preface(self, data: bytes) -> bytes:
        """Returns what follows the first bytes of a connection, once they are there."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ProtocolFault(Code.PROTOCOL_ERROR, "not HTTP/2")
        if len(data) < len(PREFACE):
            self._rest = data
            return b""
        self._preface_seen = True
        self.to_worker.append(PREFACE)
        return data[len(PREFACE) :]

    def _passes(self, kind: int, flags: int, stream: int, payload: memoryview) -> bool:
        """Returns whether a frame of the client passes as it is; does what else it asks for."""
        if stream > LAST_STREAM:
            raise ProtocolFault(Code.PROTOCOL_ERROR, "a stream of 32 bits")
        if kind == DATA:
            return self._on_data(flags, stream, payload)
        if kind == HEADERS:
            return self._on_headers(flags, stream, payload)
        if kind == CONTINUATION:
            if not self._open_block:
                raise ProtocolFault(Code.PROTOCOL_ERROR, "header fields that go on with nothing")
            return self._on_fields(CONTINUATION, flags, stream, payload)
        if kind == WINDOW_UPDATE:
            return True
        self._spend()
        if kind == PING:
            return not self._is_our_ping(flags, payload)
        if kind == RST_STREAM:
            return self._calls.reset(stream)
        if kind == PUSH_PROMISE:
            raise ProtocolFault(Code.PROTOCOL_ERROR, "a push of a client")
        return True

    def _on_headers(self, flags: int, stream: int, payload: memoryview) -> bool:
        self._new_call = stream > self._last_stream
        if self._new_call:
            self._last_stream = stream
            self.streams[stream] = flags & END_STREAM == END_STREAM
        elif flags & END_STREAM:
            # They end a request; or are a mistake, which the worker answers.
            self._calls.whole(stream)
        return self._on_fields(HEADERS, flags, stream, payload)

    def _on_fields(self, kind: int, flags: int, stream: int, payload: memoryview) -> bool:
        """Keeps header fields until all of a call are there; always returns False."""
        if len(self._block) >= _MAX_HEADER_FRAMES:
            raise ProtocolFault(Code.ENHANCE_YOUR_CALM, "too many header fields")
        last = flags & END_HEADERS
        if not last or not self._new_call:
            self._block.append(frames.frame(kind, flags, stream, bytes(payload)))
        else:
            self._block.append(frames.frame(kind, flags & ~END_HEADERS, stream, bytes(payload)))
            self._block.append(frames.frame(CONTINUATION, END_HEADERS, stream, self._field))
        self._open_block = 0 if last else stream
        if last:
            self.to_worker += self._block
            self._block = []
        return False

    def _on_data(self, flags: int, stream: int, payload: memoryview) -> bool:
        ends = flags & END_STREAM == END_STREAM
        data = _without_padding(payload) if flags & PADDED else payload
        if not data and not ends:
            self._spend()
        if self._calls.data(stream, data, ends=ends):
            return True
        if payload:
            # The client may send as much again.
            self._ours.append(frames.window(len(payload)))
        return False

    def _is_our_ping(self, flags: int, payload: memoryview) -> bool:
        """Returns whether a PING answers ours: then the client knows that we leave."""
        if not (self._leaving and flags & ACK and payload == _OUR_PING):
            return False
        if not self._heard:
            self._heard = True
            self._looks_left = _LAST_LOOKS
        return True

    def _spend(self) -> None:
        self._allowance -= 1
        if self._allowance < 0:
            raise ProtocolFault(Code.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    # From the worker

    def from_worker(self, data: bytes) -> None:
        """Takes bytes of the worker, whose frames may be of any size."""
        if self._head:
            data = self._head + data
            self._head = b""
        streams, end, at = self.streams, len(data), self._to_come
        while end - at >= 9:
            size_kind, flags, stream = HEAD.unpack_from(data, at)
            kind = size_kind & 0xFF
            if kind <= HEADERS:  # or DATA
                if flags & END_STREAM:
                    if isinstance(streams.pop(stream, None), Request):
                        self._calls.release(stream)
                elif kind == HEADERS and streams.get(stream) is not True:
                    self._calls.whole(stream)
                if kind == HEADERS:
                    self._fields_go_on = not flags & END_HEADERS
            elif kind == RST_STREAM:
                self._calls.forget(stream)
            elif kind == CONTINUATION:
                self._fields_go_on = not flags & END_HEADERS
            at += 9 + (size_kind >> 8)
            self._greeted = True
        if at < end:
            self._head = data[at:]
            data = data[:at]
            at = end = len(data)
        self._to_come = at - end
        if data:
            self.to_client.append(data)
        self._calls.charge()
        if self._ours:
            self._fill_gap()

    def _fill_gap(self) -> None:
        """Sends the client what is ours, if the worker's frames allow it just now."""
        if self._greeted and not (self._to_come or self._fields_go_on):
            self.to_client += self._ours
            self._ours.clear()

    def _send(self) -> None:
        self._fill_gap()
        self._flush()

    def look(self, *, end_slow: bool) -> None:
        """Called every second.

        Args:
            end_slow: whether to refuse the requests of which hardly any byte has come since this
                was last asked for.
        """
        self._allowance = min(_BURST, self._allowance + _FRAMES_A_SECOND)
        if self._leaving:
            self._go_on_leaving()
        if end_slow:
            self._calls.refuse_slow()
            self._send()

    # The connection's end

    def leave(self) -> None:
        """Asks the client to begin no more calls; see `ended`.

        Those that it has begun by then are answered, and those that it begins before it has read
        this. It closes the connection after them, or we do.
        """
        if not self._leaving:
            self._leaving = True
            self._ours += (frames.goaway(), frames.ping(_OUR_PING))
            self._send()

    def _go_on_leaving(self) -> None:
        """Ends it when the client has known it for a while, or never shows that it does."""
        self._looks_left -= 1
        if self._looks_left <= 0 and not self.streams:
            self.end()
            self.ended = True
            self._flush()

    @property
    def begun(self) -> bool:
        """Whether the client has shown that it speaks HTTP/2."""
        return self._preface_seen

    def end(self, fault: ProtocolFault | None = None) -> None:
        """Says that the connection ends, and after which call, if the worker's frames allow it.

        Args:
            fault: of the client; None if there is none.
        """
        code, why = (fault.code, str(fault)) if fault else (Code.NO_ERROR, "")
        self._ours.append(frames.goaway(code, self._last_stream, why))
        self._fill_gap()

    def close(self) -> None:
        """Gives back the memory of all calls."""
        self._calls.close()


def _is_whole(data: bytes, at: int, size: int) -> bool:
    """Returns whether there is one message of so many bytes, not compressed."""
    return size >= 0 and data[at] == 0 and _SIZE.unpack_from(data, at + 1)[0] == size


def _without_padding(payload: memoryview) -> memoryview:
    """Returns the payload of a frame with the flag PADDED, as far as it counts.

    Raises:
        ProtocolFault: the padding is longer than the frame.
    """
    size = len(payload)
    if not size or payload[0] >= size:
        raise ProtocolFault(Code.PROTOCOL_ERROR, "more padding than there is in the frame")
    return payload[1 : size - payload[0]]
