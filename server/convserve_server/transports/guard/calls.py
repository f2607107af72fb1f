"""The open calls of one client's connection, and those of them that are refused."""

from collections.abc import Callable

from convserve_server.core.errors import NoMemoryForRequest, RequestTooSlow, ServeError
from convserve_server.protocols.grpc_errors import to_failure
from convserve_server.transports.guard import frames
from convserve_server.transports.guard.frames import Code
from convserve_server.transports.guard.memory import RequestMemory
from convserve_server.transports.guard.messages import Request

#: Calls refused here whose client may still send: more at a time are not remembered.
_MAX_REFUSED = 4096
#: Memory that a call holds beside its messages, bytes: its header fields, or an answer not read.
_CALL_BYTES = 2**14
#: Header fields of answers to refused calls, by the error.
_ANSWERS: dict[tuple[type[ServeError], str], bytes] = {}
_MAX_ANSWERS = 256

_NO_MEMORY = (
    "calls hold as much memory as they may, and those of this connection most; send fewer large "
    "requests at a time"
)
_TOO_SLOW = "the request is not whole, and hardly any byte of it came for 10 s"


class OpenCalls:
    """Calls by their stream; a Holder.

    Args:
        max_message_bytes: of a request.
        memory: of all connections.
        to_worker, to_client: frames for either side, to which those of refusals are added.
        send: sends them; called where neither side has just sent something.
        refused: notes a call that is refused here.

    Attributes:
        held: see Holder.
        streams: what is known of each call: True: its request is whole, or answered; False: only
            header fields have come; else what has come of its messages.
    """

    def __init__(
        self,
        max_message_bytes: int,
        memory: RequestMemory,
        to_worker: list[bytes | memoryview],
        to_client: list[bytes],
        send: Callable[[], None],
        refused: Callable[[ServeError], None],
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._memory = memory
        self._to_worker = to_worker
        self._to_client = to_client
        self._send = send
        self._on_refused = refused
        self.held = 0
        self.streams: dict[int, Request | bool] = {}
        # Of them, those of which messages have come, and not all.
        self._requests: dict[int, Request] = {}
        self._charged = 0
        self._refused: dict[int, None] = {}
        memory.holders.add(self)

    def data(self, stream: int, data: memoryview, *, ends: bool) -> bool:
        """Takes a part of a request; returns whether it may pass.

        Args:
            stream: of the call.
            data: of its messages.
            ends: whether it is the last part.
        """
        state = self.streams.get(stream)
        if state is None and stream in self._refused:
            if ends:
                del self._refused[stream]
            return False
        if state is None or state is True:
            return True  # of a call that was answered, or by mistake: the worker sees to it
        request = self._begun(stream) if state is False else state
        if error := request.take(data, self._max_message_bytes):
            self._refuse(stream, error, whole=ends)
            return False
        if ends:
            self.whole(stream)
            return True
        request.held += len(data)
        self._memory.add(self, len(data))
        return stream not in self._refused

    def whole(self, stream: int) -> None:
        """Notes that a request is whole, or that its answer has begun."""
        if stream in self.streams:
            self.streams[stream] = True
            self.release(stream)

    def reset(self, stream: int) -> bool:
        """Notes that the client has given up a call; returns whether the worker has to know."""
        self.forget(stream)
        if stream not in self._refused:
            return True
        del self._refused[stream]
        return False

    def forget(self, stream: int) -> None:
        """Notes that a call has ended."""
        self.streams.pop(stream, None)
        self.release(stream)

    def release(self, stream: int) -> None:
        """Gives back the memory of a request, if it was not whole."""
        request = self._requests.pop(stream, None)
        if request is not None:
            self._memory.add(self, -request.held)

    def charge(self) -> None:
        """Counts what the calls hold beside their messages; called when their number may change."""
        size = len(self.streams) * _CALL_BYTES - self._charged
        if size:
            self._charged += size
            self._memory.add(self, size)

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
                self.forget(stream)
                self._on_refused(NoMemoryForRequest(_NO_MEMORY))
                self._to_worker.append(frames.reset(stream, Code.CANCEL))
                self._to_client.append(frames.reset(stream, Code.ENHANCE_YOUR_CALM))
        else:
            return False
        self.charge()
        self._send()
        return True

    def refuse_slow(self) -> None:
        """Refuses the requests of which hardly any byte has come since this was last called."""
        for stream, state in list(self.streams.items()):
            request = self._begun(stream) if state is False else state
            if isinstance(request, Request) and request.is_slow():
                self._refuse(stream, RequestTooSlow(_TOO_SLOW))
        self.charge()

    def close(self) -> None:
        """Gives back the memory of all."""
        self.streams.clear()
        self._requests.clear()
        self._memory.add(self, -self.held)
        self._memory.holders.discard(self)

    def _begun(self, stream: int) -> Request:
        request = self.streams[stream] = self._requests[stream] = Request()
        return request

    def _refuse(self, stream: int, error: ServeError, *, whole: bool = False) -> None:
        """Answers a call whose request is not whole, or just became it."""
        self.forget(stream)
        self._on_refused(error)
        self._to_worker.append(frames.reset(stream, Code.CANCEL))
        self._to_client.append(frames.answer(stream, _fields_of(error)))
        if not whole:
            self._to_client.append(frames.reset(stream, Code.NO_ERROR))
            self._refused[stream] = None
            if len(self._refused) > _MAX_REFUSED:
                del self._refused[next(iter(self._refused))]


def _fields_of(error: ServeError) -> bytes:
    """Returns the header fields of an answer, made once: who attacks makes many alike."""
    key = type(error), str(error)
    if key not in _ANSWERS:
        if len(_ANSWERS) >= _MAX_ANSWERS:
            _ANSWERS.clear()
        _ANSWERS[key] = frames.fields_of(to_failure(error))
    return _ANSWERS[key]
