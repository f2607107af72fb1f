"""Passes every call of every transport to the handler of its method; knows what is in flight."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from google.rpc import code_pb2

from convserve_server.core.errors import (
    DeadlinePassed,
    Draining,
    InternalFault,
    MessageTooLarge,
    ServeError,
    Unimplemented,
    listed,
    quoted,
)
from convserve_server.protocols.base import (
    GONE,
    Call,
    Caller,
    EarlyRefuser,
    Failure,
    Interceptor,
    Service,
    Stream,
    StreamHandler,
    UnaryHandler,
)
from convserve_server.protocols.call_follower import CallFollower
from convserve_server.telemetry.observer import NO_OBSERVER, Observer

#: A client gives up so much before the deadline that it has stated, s and as a part of its time: it
#: rounds that up. Source: gRPC's PROTOCOL-HTTP2.md (Timeout).
_EARLY_S, _EARLY = 0.02, 0.01

#: The status of a call with a result, and its reason.
_RESULT = code_pb2.OK, ""
#: What ends a call whose deadline passes before anything else does.
_TOO_LATE = Failure(code_pb2.DEADLINE_EXCEEDED, "the deadline passed", (), DeadlinePassed.reason)


class Router:
    """What transports hand calls to.

    Args:
        services: that there are; calls to others end in an error of the first one's protocol.
        interceptors: wrap every handler; the first is the outermost.
        max_message_bytes: of a request; larger ones are refused.
        observer: of calls that are refused, and of how all of them end.
        follower: for the access log and traces.
    """

    def __init__(
        self,
        services: Sequence[Service],
        interceptors: Sequence[Interceptor] = (),
        max_message_bytes: int = 2**31,
        observer: Observer = NO_OBSERVER,
        follower: CallFollower | None = None,
    ) -> None:
        self._services = {service.name: service for service in services}
        self._interceptors = interceptors
        self._max_message_bytes = max_message_bytes
        self._observer = observer
        self._follower = CallFollower() if follower is None else follower
        # Each with what its protocol makes of an error.
        self._unary: dict[str, tuple[UnaryHandler, Callable[[ServeError], Failure]]] = {}
        self._early: dict[str, tuple[EarlyRefuser, Callable[[ServeError], Failure]]] = {}
        self._streams: dict[str, tuple[StreamHandler, Callable[[ServeError], Failure]]] = {}
        for service in services:
            for name, handler in service.unary().items():
                path = f"/{service.name}/{name}"
                for one in reversed(interceptors):
                    handler = one.unary(path, handler)
                self._unary[path] = handler, service.failure
                # Not those that are wrapped: who wraps them sees every call.
                if isinstance(handler, EarlyRefuser):
                    self._early[path] = handler, service.failure
            for name, streaming in service.streams().items():
                path = f"/{service.name}/{name}"
                for one in reversed(interceptors):
                    streaming = one.stream(path, streaming)
                self._streams[path] = streaming, service.failure
        self._unknown_method = self._refuse_unknown, services[0].failure
        # Each call is removed once, by whoever answers or cancels it: dict.pop is atomic.
        self._open: dict[Call, bool] = {}
        # Calls whose answers are on their way to the transport; it may be closed only after them.
        self._answering: set[Call] = set()
        # Numbers for answers, and for the times that somebody asked how many there are. Any thread
        # may answer; next() of a count is atomic and costs less than a lock.
        self._numbers = itertools.count()
        self._asked = itertools.count()
        # Calls that were refused before they were made, by what their ends are counted by.
        self._refused_early: dict[tuple[str, str, int, str], int] = {}
        self._refusing = False
        #: Whether the server stops: connections should end once their calls are answered.
        self.draining = False
        #: When the last call came in, time.monotonic().
        self._last_call = 0.0
        # Set from when somebody waits for calls to end; until then nobody is notified.
        self._watched = False
        self._changed = threading.Condition()

    @property
    def unary_methods(self) -> tuple[str, ...]:
        """Paths of all unary methods."""
        return tuple(self._unary)

    @property
    def stream_methods(self) -> tuple[str, ...]:
        """Paths of all streaming methods."""
        return tuple(self._streams)

    def handle(self, call: Call) -> None:
        """Has a unary call answered, now or later; never raises."""
        call.tracker = self
        handler, to_failure = self._unary.get(call.method, self._unknown_method)
        if self._refusing:
            # Not open: they would keep those waiting who wait for the last call.
            refusal = to_failure(Draining("the server is stopping"))
            self._observer.refused(call.method, refusal.reason)
            self._observer.finished(call.method, "", refusal.code, refusal.reason, 0.0)
            call.arrived = time.monotonic()
            if self._follower.active:
                self._follower.begin(call)
            call.send_failure(refusal)
            if call.notes is not None:
                self._follower.ended(call, refusal, time.monotonic())
            return
        self._open[call] = True
        call.arrived = self._last_call = time.monotonic()
        try:
            if self._follower.active:
                self._follower.begin(call)
            if len(call.payload) > self._max_message_bytes:
                raise self._too_large(len(call.payload))
            handler(call)
        except ServeError as error:
            self._observer.refused(call.method, error.reason)
            call.fail(to_failure(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the transport
            call.fail(to_failure(InternalFault(call.method, error, call.request_id())))
        call.payload = b""
        if call not in self._open:
            call.on_cancel = None  # set after the answer; see Call._end

    def refusal(
        self, method: str, payload: bytes, connection: str, deadline: float | None, now: float
    ) -> Failure | None:
        """Returns with what to answer a call that need not be made, which counts as answered.

        For calls that say nothing in their header fields, while many are refused. Called by one
        thread, which calls count_refused() after the last one that it has.

        Args:
            method: its path.
            payload: its request.
            connection: by which it came.
            deadline: time.monotonic() at which its caller stops waiting; None: never.
            now: time.monotonic().

        Returns: None if the call has to be handled.
        """
        early = self._early.get(method)
        if early is None or self._refusing or self._follower.active:
            return None
        refuser, to_failure = early
        if len(payload) > self._max_message_bytes:
            return None
        refusal = refuser.refusal(payload, connection, deadline, now)
        if refusal is None:
            return None
        model, error = refusal
        failure = to_failure(error)
        self._note_refused(method, model, failure)
        self._last_call = now
        next(self._numbers)
        return failure

    def _note_refused(self, method: str, model: str, failure: Failure) -> None:
        of = method, model, failure.code, failure.reason
        self._refused_early[of] = self._refused_early.get(of, 0) + 1

    def count_refused(self) -> None:
        """Has the observer count the calls of refusal() and missed(), together: they are many."""
        while self._refused_early:
            of, calls = self._refused_early.popitem()
            self._observer.refused_together(*of, calls)

    def missed(self, method: str, *, late: bool) -> None:
        """Notes a call that was over before its transport could hand it over; see count_refused.

        Args:
            method: its path.
            late: its deadline passed; else its caller went away.
        """
        failure = _TOO_LATE if late else GONE
        if late:
            self._note_refused(method, "", failure)
        else:
            self._observer.finished(method, "", failure.code, failure.reason, 0.0)
        if self._follower.active:
            self._follower.missed(method, failure)

    async def handle_stream(self, stream: Stream) -> None:
        """Serves a stream until it ends.

        Raises:
            CancelledError: if the client goes away.
        """
        handler, to_failure = self._streams[stream.method]
        began = time.monotonic()
        failure: Failure | None = GONE
        try:
            await handler(stream)
            failure = None
        except ServeError as error:
            self._observer.refused(stream.method, error.reason)
            failure = to_failure(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours, which its client must hear of
            failure = to_failure(InternalFault(stream.method, error, stream.request_id()))
        finally:
            now = time.monotonic()
            code, reason = _RESULT
            if failure is not None:
                failure = _as_client_has_it(failure, began, stream.deadline, now)
                code, reason = failure.code, failure.reason
            self._observer.finished(stream.method, "", code, reason, now - began)
        if failure is not None:
            self._follower.stream_failed(stream, failure, began)
            await stream.fail(failure)

    def _unknown(self, method: str, caller: Caller) -> ServeError:
        try:
            for one in self._interceptors:
                one.check_unknown(method, caller)
        except ServeError as error:
            return error
        services = listed(sorted(self._services))
        return Unimplemented(f"no method {quoted(method)}; services: {services}")

    def refuse_unknown(self, method: str, caller: Caller) -> ServeError:
        """Returns the error of a call to a method that does not exist, which the observer sees."""
        error = self._unknown(method, caller)
        self.refused(method, error)
        return error

    def refused(self, method: str, error: ServeError) -> None:
        """Notes a call that its transport, or a protocol, refuses before there is one."""
        failure = self._unknown_method[1](error)
        self._observer.refused(method, error.reason)
        self._observer.finished(method, "", failure.code, error.reason, 0.0)
        if self._follower.active:
            self._follower.missed(method, failure)

    @property
    def in_flight(self) -> int:
        """Calls that are being answered, those on streams included."""
        return len(self._open) + len(self._answering)

    def drain(self) -> None:
        """Lets services end their streams; calls are still answered."""
        self.draining = True
        for service in self._services.values():
            service.drain()

    def refuse(self) -> None:
        """Refuses new calls; those in flight go on."""
        self._refusing = True

    def wait_quiet(self, quiet_s: float, timeout_s: float) -> None:
        """Waits until no call is in flight and none has come in for quiet_s, at most timeout_s."""
        end = time.monotonic() + timeout_s
        with self._changed:
            self._watched = True
            while (now := time.monotonic()) < end:
                until = end if self._open else min(end, self._last_call + quiet_s)
                if until <= now:
                    return
                self._changed.wait(until - now)

    def wait_idle(self, timeout_s: float) -> int:
        """Waits until no call is in flight, at most so long; returns how many are left."""
        with self._changed:
            self._watched = True
            self._changed.wait_for(lambda: not self._open and not self._answering, timeout_s)
            return len(self._open) + len(self._answering)

    def answered(self) -> int:
        """Returns how many calls were answered so far, with a result or an error."""
        # To ask a count is to take a number.
        return next(self._numbers) - next(self._asked)

    def abandon(self) -> None:
        """Answers all calls in flight with an error and stops working on them."""
        for call in list(self._open):
            _, to_failure = self._unary.get(call.method, self._unknown_method)
            call.abandon(to_failure(Draining("the server stopped before the answer was there")))

    def claim(self, call: Call) -> bool:
        """See Tracker.claim."""
        self._answering.add(call)
        if self._open.pop(call, False):
            return True
        self._answering.discard(call)
        return False

    def ended(self, call: Call, failure: Failure, *, answered: bool) -> None:
        """See Tracker.ended."""
        if answered:
            next(self._numbers)
        now = time.monotonic()
        failure = _as_client_has_it(failure, call.arrived, call.deadline, now)
        self._observer.finished(
            call.method, call.model, failure.code, failure.reason, now - call.arrived
        )
        self._follower.ended(call, failure, now)
        self._answering.discard(call)
        self._tell_watchers()

    def all_answered(self, calls: Sequence[Call]) -> None:
        """See Tracker.all_answered."""
        now = time.monotonic()
        alike: dict[tuple[str, str], list[float]] = {}
        for call in calls:
            next(self._numbers)
            alike.setdefault((call.method, call.model), []).append(now - call.arrived)
        for (method, model), seconds in alike.items():
            self._observer.answered(method, model, seconds)
        for call in calls:
            if call.notes is not None:
                self._follower.ended(call, None, now)
        self._answering.difference_update(calls)
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        if self._watched:
            with self._changed:
                self._changed.notify_all()

    def _refuse_unknown(self, call: Call) -> None:
        raise self._unknown(call.method, call.caller())

    def _too_large(self, size: int) -> MessageTooLarge:
        """Returns the error in the words of grpcio, so that clients see no difference."""
        limit = self._max_message_bytes
        return MessageTooLarge(
            f"SERVER: Received message larger than max ({size} vs. {limit})", limit
        )


def _as_client_has_it(
    failure: Failure, arrived: float, deadline: float | None, now: float
) -> Failure:
    """Returns with what a call has ended for its client.

    A client ends a call when its time is over, as one that goes away.

    Args:
        failure: with which the call has ended here.
        arrived: time.monotonic() when it came.
        deadline: of the call, time.monotonic(); None: without.
        now: time.monotonic().
    """
    if failure is not GONE or deadline is None:
        return failure
    late = deadline - now <= _EARLY_S + _EARLY * (deadline - arrived)
    return _TOO_LATE if late else failure
