"""The seam between protocols and transports: calls that answer themselves, and who answers them.

A transport makes a Call of what comes in, and hands it to the Router, which finds the handler of
its method. The handler, or the core behind it, answers the call now or later, from any thread. So
neither side knows the other, and several transports serve at once.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from convserve_server.core.errors import ServeError
from convserve_server.protocols.access import Access
from convserve_server.protocols.request_ids import REQUEST_ID, accepted_id, new_id
from convserve_server.telemetry.call_notes import CallNotes

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, ready to be sent.

    Attributes:
        code: of the status: of gRPC (google/rpc/code.proto) or HTTP, as the protocol has it.
        message: for people, cut to fit.
        trailers: what programs read of it, as header fields.
        reason: see ServeError.reason.
    """

    code: int
    message: str
    trailers: Metadata = ()
    reason: str = ""


def header_in(metadata: Metadata, name: str) -> str | bytes | None:
    """Returns the first header field of that name, or None."""
    for key, value in metadata:
        if key == name:
            return value
    return None


#: What a call that nobody waits for any more ends with.
GONE = Failure(1, "the caller went away", reason="CANCELLED")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        peer: address, as "ipv4:127.0.0.1:51234".
        metadata: header fields of the call.
        identity: whom the client's certificate names, which TLS has verified; empty without one.
    """

    peer: str
    metadata: Metadata
    identity: str = ""


class Tracker(Protocol):
    """Knows which calls are open."""

    def claim(self, call: "Call") -> bool:
        """Returns whether the call is still open, and closes it: True for one caller only."""

    def ended(self, call: "Call", failure: "Failure", *, answered: bool) -> None:
        """Notes that the error of a claimed call is with the transport.

        Args:
            call: that was claimed.
            failure: that it ended with.
            answered: whether its handler has answered it; else nobody waits for it any more.
        """

    def all_answered(self, calls: "Sequence[Call]") -> None:
        """Notes that the results of claimed calls are with the transport; never raises.

        Args:
            calls: that were claimed, of this tracker.
        """


class Call(ABC):
    """A unary call with its whole request. Answered once; what comes second changes nothing.

    Args:
        method: "/package.Service/Method".
        payload: the request; the router empties it when the handler has returned, so that it need
            not stay in memory until the answer.
        deadline: time.monotonic() at which the caller stops waiting; None: never.
        connection: by which it came; no more than a name, the same for all calls that share a
            turn with each other: those of a connection, or of all connections of a key.
        idle_caller: no other call is open on the transport: short work may be done on the thread
            that handles the call, which has nothing else to do.

    Attributes:
        access: what its caller may do and see; None: everything.
        on_cancel: ends work that nobody waits for; set by the handler.
        tracker: set by the router.
        arrived: time.monotonic() at which the router had it.
        model: the version that is to answer, as "NAME/VERSION"; empty while there is none.
        notes: for the access log and traces; None where nobody wants to know. Handlers pass them on
            to the core.
        grpc: whether it came over gRPC; else it came over HTTP/1.1.
    """

    __slots__ = (
        "_on_end",
        "access",
        "arrived",
        "connection",
        "deadline",
        "idle_caller",
        "method",
        "model",
        "notes",
        "on_cancel",
        "payload",
        "tracker",
    )

    grpc: ClassVar[bool] = True
    tracker: Tracker
    arrived: float

    def __init__(
        self,
        method: str,
        payload: bytes,
        deadline: float | None,
        connection: str,
        idle_caller: bool = False,
    ) -> None:
        self.method = method
        self.payload = payload
        self.deadline = deadline
        self.connection = connection
        self.idle_caller = idle_caller
        self.model = ""
        self.access: Access | None = None
        self.on_cancel: Callable[[], None] | None = None
        self._on_end: Callable[[Failure | None], None] | None = None
        self.notes: CallNotes | None = None

    @abstractmethod
    def caller(self) -> Caller:
        """Returns who calls, until its end is noted; asking costs time, so only where needed."""

    def header(self, name: str) -> str | bytes | None:
        """Returns a header field of the call, until its end is noted; None if it has none such.

        Args:
            name: in lower case.
        """
        return header_in(self.caller().metadata, name)

    def request_id(self) -> str:
        """Returns the id by which the log has the call: its caller's, or else a new one.

        A call without notes has no new one, since the log does not have it: it is empty.
        """
        notes = self.notes
        if notes is None:
            return accepted_id(self.header(REQUEST_ID))
        if not notes.request_id:
            notes.request_id = accepted_id(self.header(REQUEST_ID)) or new_id()
        return notes.request_id

    def sees(self, model: str) -> bool:
        """Returns whether its caller may see a model, whether or not that exists."""
        return self.access is None or self.access.sees(model)

    @abstractmethod
    def send(self, payload: bytes) -> bool:
        """Sends the answer; for reply(), which sees to it that there is one.

        Returns:
            False if the caller is known to have gone away.
        """

    @abstractmethod
    def send_failure(self, failure: Failure) -> None:
        """Sends the error; for fail(), which sees to it that there is one answer."""

    def reply(self, payload: bytes) -> None:
        """Answers the call, unless it is answered or has gone away."""
        reply_all([(self, payload)])

    def fail(self, failure: Failure) -> None:
        """Answers the call with an error, unless it is answered or has gone away."""
        if self.tracker.claim(self):
            try:
                self.send_failure(failure)
            finally:
                self._end(failure, answered=True)

    def cancel(self) -> None:
        """Ends the work on the call, which has gone away; for its transport."""
        if self.tracker.claim(self):
            try:
                if self.on_cancel is not None:
                    self.on_cancel()
            finally:
                self._end(GONE, answered=False)

    def abandon(self, failure: Failure) -> None:
        """Answers the call with an error and ends the work on it; for the router."""
        if self.tracker.claim(self):
            try:
                self.send_failure(failure)
                if self.on_cancel is not None:
                    self.on_cancel()
            finally:
                self._end(failure, answered=False)

    def _end(self, failure: Failure, *, answered: bool) -> None:
        try:
            self._leave(failure)
        finally:
            self.tracker.ended(self, failure, answered=answered)

    def _leave(self, failure: Failure | None) -> None:
        """Calls who wants to know that it has ended, before its tracker notes it."""
        # It leads to the model, and that back here: a circle, which would hold a version that is
        # unloaded until the next garbage collection.
        self.on_cancel = None
        if self._on_end is not None:
            self._on_end(failure)

    def add_end(self, end: Callable[[Failure | None], None]) -> None:
        """Has a function called when the call is answered, with the failure if there is one."""
        before = self._on_end
        if before is None:
            self._on_end = end
        else:

            def both(failure: Failure | None) -> None:
                end(failure)
                before(failure)

            self._on_end = both


def reply_all(answers: Sequence[tuple[Call, bytes]]) -> None:
    """Answers calls, unless they are answered or have gone away.

    All are sent before the end of any is noted: see Outbox. They have one tracker.

    Raises:
        Exception: the first one that sending an answer, or noting an end, has raised; all others
            are sent and noted all the same.
    """
    failed: Exception | None = None
    sent: list[Call] = []
    gone: list[Call] = []
    for call, payload in answers:
        if call.tracker.claim(call):
            taken = True
            try:
                taken = call.send(payload)
            except Exception as error:  # noqa: BLE001 - raised below
                failed = failed or error
            (sent if taken else gone).append(call)
    for call in sent:
        try:
            call._leave(None)
        except Exception as error:  # noqa: BLE001 - raised below
            failed = failed or error
    if sent:
        sent[0].tracker.all_answered(sent)
    for call in gone:
        try:
            call._end(GONE, answered=False)
        except Exception as error:  # noqa: BLE001 - raised below
            failed = failed or error
    if failed is not None:
        raise failed


class Stream(ABC):
    """A call with streams of messages both ways. All methods run on its transport's event loop.

    Args:
        method: "/package.Service/Method".
        deadline: time.monotonic() at which the caller stops waiting; None: never.
        connection: by which it came.
        handle: takes calls that a protocol makes of what it reads; see inner_call().

    Attributes:
        handle: the same.
        access: what its caller may do and see; None: everything.
    """

    access: Access | None = None

    def __init__(
        self,
        method: str,
        deadline: float | None,
        connection: str,
        handle: Callable[[Call], None],
    ) -> None:
        self.method = method
        self.deadline = deadline
        self.connection = connection
        self.handle = handle
        self._headers: dict[str, str | bytes | None] = {}
        self.loop = asyncio.get_running_loop()

    @abstractmethod
    def caller(self) -> Caller:
        """Returns who calls."""

    @abstractmethod
    async def open(self) -> None:
        """Sends the header fields of the answer, unless they are sent; write() does it as well."""

    @abstractmethod
    async def read(self) -> bytes | None:
        """Returns the next message; None after the last one."""

    @abstractmethod
    async def write(self, payload: bytes) -> None:
        """Sends a message; returns when the client can receive it.

        Raises:
            CancelledError: if the client has gone away.
        """

    @abstractmethod
    async def fail(self, failure: Failure) -> None:
        """Ends the stream with an error; for the router."""

    def sees(self, model: str) -> bool:
        """See Call.sees."""
        return self.access is None or self.access.sees(model)

    def header(self, name: str) -> str | bytes | None:
        """See Call.header; costs nothing when asked again."""
        if name not in self._headers:
            self._headers[name] = header_in(self.caller().metadata, name)
        return self._headers[name]

    def request_id(self) -> str:
        """Returns the id that the caller gives; empty if there is none."""
        return accepted_id(self.header(REQUEST_ID))

    def inner_call(
        self, method: str, payload: bytes, done: Callable[[bytes | Failure], None]
    ) -> Call:
        """Makes a unary call of its own of a message, and has it answered.

        Args:
            method: "/package.Service/Method".
            payload: its request.
            done: takes its answer, on this event loop; is not called once it is cancelled.
        """
        call = _InnerCall(self, method, payload, done)
        self.handle(call)
        return call


class _InnerCall(Call):
    """See Stream.inner_call."""

    __slots__ = ("_done", "_stream")

    def __init__(
        self,
        stream: Stream,
        method: str,
        payload: bytes,
        done: Callable[[bytes | Failure], None],
    ) -> None:
        super().__init__(method, payload, stream.deadline, stream.connection)
        self._stream = stream
        self._done = done

    def caller(self) -> Caller:
        return self._stream.caller()

    def header(self, name: str) -> str | bytes | None:
        return self._stream.header(name)

    def send(self, payload: bytes) -> bool:
        self._stream.loop.call_soon_threadsafe(self._done, payload)
        return True

    def send_failure(self, failure: Failure) -> None:
        self._stream.loop.call_soon_threadsafe(self._done, failure)


#: Answers a call, now or later. May raise ServeError.
UnaryHandler = Callable[[Call], None]


@runtime_checkable
class EarlyRefuser(Protocol):
    """A handler that can refuse a call before there is one, as long as it refuses others."""

    def refusal(
        self, payload: bytes, connection: str, deadline: float | None, now: float, /
    ) -> tuple[str, ServeError] | None:
        """Returns why a call would be refused that says nothing in its header fields.

        Args:
            payload: of the call.
            connection: by which it came.
            deadline: time.monotonic() at which its caller stops waiting; None: never.
            now: time.monotonic().

        Returns: the version that refuses, as "NAME/VERSION", and the error; None if the call has to
            be handled to know.
        """


#: Reads and writes a stream until it ends. May raise ServeError.
StreamHandler = Callable[[Stream], Awaitable[None]]


class Service(Protocol):
    """A service of a protocol.

    Attributes:
        name: full name, as "convserve.v1.Classifier".
    """

    name: str

    def unary(self) -> Mapping[str, UnaryHandler]:
        """Returns the handlers of its unary methods, by their names."""

    def streams(self) -> Mapping[str, StreamHandler]:
        """Returns the handlers of its streaming methods, by their names."""

    def failure(self, error: ServeError) -> Failure:
        """Returns what the protocol makes of an error."""

    def drain(self) -> None:
        """Ends streams when what is in flight on them is answered; the server stops. Any thread."""


class Interceptor:
    """Wraps the handlers of all methods of all services; by default it changes nothing.

    It runs before the handler, may raise a ServeError, and may ask by Call.add_end how the call
    ended.
    """

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """Returns the handler of a unary method, wrapped.

        Args:
            method: "/package.Service/Method".
            handler: of the method, or the next interceptor's.
        """
        del method
        return handler

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        """Returns the handler of a streaming method, wrapped.

        Args:
            method: "/package.Service/Method".
            handler: of the method, or the next interceptor's.
        """
        del method
        return handler

    def check_unknown(self, method: str, caller: Caller) -> None:
        """Looks at a call to a method that does not exist, before its caller hears that.

        Args:
            method: "/package.Service/Method".
            caller: who calls.

        Raises:
            ServeError: what the caller is to hear in its place.
        """
