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

from convserve_server.core.errors import NoMemoryForRequest, RequestTooSlow, ServeError
from convserve_server.protocols.grpc_errors import to_failure
from convserve_server.transports.guard import frames
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
#: Calls refused here whose client may still send: more at a time are not remembered.
_MAX_REFUSED = 4096
#: Frames that ask for work and bring none, as PING: of a client so many at once, and a second.
_BURST, _FRAMES_A_SECOND = 10_000, 2_000
#: By which we know the answer to a PING of ours.
_OUR_PING = b"convserv"
#: Seconds for a client to answer it; after that, for calls that it had begun before.
_LEAVE_LOOKS, _LAST_LOOKS = 20, 2

_NO_MEMORY = (
    "requests that are not whole yet hold as much memory as they may, and this one most; send "
    "fewer large ones at a time"
)
_TOO_SLOW = "the request is not whole, and hardly any byte of it came for 10 s"

#: Memory that a call holds beside its messages, bytes: its header fields, or an answer not read.
_CALL_BYTES = 2**14
#: Header fields of answers to refused calls.
_ANSWERS: dict[tuple[type[ServeError], str], bytes] = {}
_MAX_ANSWERS = 256

#: What is known of a stream: True: its request is whole, or answered; False: only header fields
#: have come; else what has come of its messages.
_State = Request | bool


class Exchange:
    """One client's connection.

    Args:
        caller_field: added to the header fields of each call; see caller_field.py.
        max_message_bytes: of a request.
        memory: of all connections.
        flush: sends what is to be sent; called where neither side has just sent something.

    Attributes:
        to_worker, to_client: bytes to be sent, which the owner takes out.
        held: see Holder.
        streams: calls that are not answered, by their stream.
    """

    def __init__(
        self,
        caller_field: bytes,
        max_message_bytes: int,
        memory: RequestMemory,
        flush: Callable[[], None],
    ) -> None:
        self._flush = flush
        self._field = caller_field
        self._field_size = len(caller_field) << 8
        self._max_message_bytes = max_message_bytes
        self._memory = memory
        memory.holders.add(self)
        self.to_worker: list[bytes | memoryview] = []
        self.to_client: list[bytes | memoryview] = []
        self.held = 0
        self.streams: dict[int, _State] = {}
        # Of them, those of which messages have come, and not all.
        self._requests: dict[int, Request] = {}
        self._charged = 0
        self._refused: dict[int, None] = {}
        self._last_stream = 0
        # From the client: the beginning of a frame; the stream whose header fields go on.
        self._rest = b""
        self._open_block = 0
        self._block: list[bytes] = []
        self._new_call = False
        self._allowance = float(_BURST)
        # To the client: what of a frame is to come, the beginning of a head, whether header fields
        # go on, whether the worker has sent its first frame, and what waits for a gap.
        self._to_come = 0
        self._head = b""
        self._fields_go_on = False
        self._greeted = False
        self._ours: list[bytes] = []
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
        self._charge()
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
            self._forget(stream)
            if stream in self._refused:
                # The worker has had one.
                del self._refused[stream]
                return False
        elif kind == PUSH_PROMISE:
            raise ProtocolFault(Code.PROTOCOL_ERROR, "a push of a client")
        return True

    def _on_headers(self, flags: int, stream: int, payload: memoryview) -> bool:
        self._new_call = stream > self._last_stream
        if self._new_call:
            self._last_stream = stream
            self.streams[stream] = flags & END_STREAM == END_STREAM
        elif flags & END_STREAM:
            # They end a request; or are a mistake, which the worker answers.
            self._whole(stream)
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
        state, ends = self.streams.get(stream), flags & END_STREAM
        if state is None and stream in self._refused:
            self._give_back(len(payload))
            if ends:
                del self._refused[stream]
            return False
        if state is None or state is True:
            return True  # of a request that was answered, or by mistake: the worker sees to it
        if state is False:
            state = self._new_request(stream)
        data = _without_padding(payload) if flags & PADDED else payload
        if error := state.take(data, self._max_message_bytes):
            self._refuse(stream, error, whole=bool(ends))
        elif ends:
            self._whole(stream)
        else:
            if not data:
                self._spend()
            state.held += len(data)
            self._memory.add(self, len(data))
        if not ends and stream in self._refused or error:
            self._give_back(len(payload))
            return False
        return True

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

    def _give_back(self, size: int) -> None:
        """Lets the client send as much again as it sent of a call that was refused."""
        if size:
            self._ours.append(frames.window(size))

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
                        self._release(stream)
                elif kind == HEADERS and streams.get(stream) is not True:
                    self._whole(stream)
                if kind == HEADERS:
                    self._fields_go_on = not flags & END_HEADERS
            elif kind == RST_STREAM:
                self._forget(stream)
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
        self._charge()
        if self._ours:
            self._fill_gap()

    def _fill_gap(self) -> None:
        """Sends the client what is ours, if the worker's frames allow it just now."""
        if self._greeted and not (self._to_come or self._fields_go_on):
            self.to_client += self._ours
            self._ours = []

    # Calls that end

    def _whole(self, stream: int) -> None:
        """Notes that a request is whole, or that its answer has begun."""
        if stream in self.streams:
            self.streams[stream] = True
            self._release(stream)

    def _forget(self, stream: int) -> None:
        self.streams.pop(stream, None)
        self._release(stream)

    def _new_request(self, stream: int) -> Request:
        request = self.streams[stream] = self._requests[stream] = Request()
        return request

    def _release(self, stream: int) -> None:
        request = self._requests.pop(stream, None)
        if request is not None:
            self._memory.add(self, -request.held)

    def _charge(self) -> None:
        """Counts what the calls hold beside their messages."""
        calls = len(self.streams) * _CALL_BYTES
        size, self._charged = calls - self._charged, calls
        self._memory.add(self, size)

    def _refuse(self, stream: int, error: ServeError, *, whole: bool = False) -> None:
        """Answers a call whose request is not whole, or just became it."""
        self._forget(stream)
        self.to_worker.append(frames.reset(stream, Code.CANCEL))
        self._ours.append(frames.answer(stream, _fields_of(error)))
        if not whole:
            self._ours.append(frames.reset(stream, Code.NO_ERROR))
            self._refused[stream] = None
            if len(self._refused) > _MAX_REFUSED:
                del self._refused[next(iter(self._refused))]

    def refuse_largest(self) -> bool:
        """See Holder."""
        if self._requests:
            stream = max(self._requests, key=lambda one: self._requests[one].held)
            self._refuse(stream, NoMemoryForRequest(_NO_MEMORY))
        elif self.streams:
            stream = next(reversed(self.streams))
            if self.streams[stream] is False:
                self._refuse(stream, NoMemoryForRequest(_NO_MEMORY))
            else:
                # Its answer may have begun: gRPC's clients make RESOURCE_EXHAUSTED of this.
                self._forget(stream)
                self.to_worker.append(frames.reset(stream, Code.CANCEL))
                self._ours.append(frames.reset(stream, Code.ENHANCE_YOUR_CALM))
        else:
            return False
        self._charge()
        self._fill_gap()
        self._flush()
        return True

    def look(self, *, end_slow: bool) -> None:
        """Called every second.

        Args:
            end_slow: whether to refuse the requests that hardly any byte has come of since this was
                last asked for.
        """
        self._allowance = min(_BURST, self._allowance + _FRAMES_A_SECOND)
        if self._leaving:
            self._go_on_leaving()
        if not end_slow:
            return
        for stream, state in list(self.streams.items()):
            if state is False:
                state = self._new_request(stream)
            if isinstance(state, Request) and state.is_slow():
                self._refuse(stream, RequestTooSlow(_TOO_SLOW))
        self._charge()
        self._fill_gap()
        self._flush()

    # The connection's end

    def leave(self) -> None:
        """Asks the client to begin no more calls; see `ended`.

        Those that it has begun by then are answered, and those that it begins before it has read
        this. It closes the connection after them, or we do.
        """
        if not self._leaving:
            self._leaving = True
            self._ours += (frames.goaway(), frames.ping(_OUR_PING))
            self._fill_gap()
            self._flush()

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
        self._ours = [frames.goaway(code, self._last_stream, why)]
        self._fill_gap()

    def close(self) -> None:
        """Gives back the memory of all requests."""
        self.streams.clear()
        self._requests.clear()
        self._memory.add(self, -self.held)
        self._memory.holders.discard(self)


def _fields_of(error: ServeError) -> bytes:
    """Returns the header fields of an answer, made once: who attacks makes many alike."""
    key = type(error), str(error)
    if key not in _ANSWERS:
        if len(_ANSWERS) >= _MAX_ANSWERS:
            _ANSWERS.clear()
        _ANSWERS[key] = frames.fields_of(to_failure(error))
    return _ANSWERS[key]


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
