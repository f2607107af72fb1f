"""The fast transport: pygrpc-native's HTTP/2 in Rust, outside the GIL; calls come in batches.

It speaks unary calls without TLS. Streams and unknown methods it passes on to a grpcio transport on
a Unix socket. On Linux that socket has a name and no file: what cleans temporary folders cannot
remove it, and no folder has to exist.

Source: https://github.com/pygrpc/pygrpc-native (docs/low-level-api.md).
"""

import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from convserve_server.core.errors import CannotMeetDeadline, QueueFull
from convserve_server.core.wake_ups import HeldWakeUps
from convserve_server.host.port import address
from convserve_server.host.scheduling import patient_threads
from convserve_server.protocols.base import Call, Caller, Failure, Metadata, header_in
from convserve_server.protocols.grpc_errors import PUSHBACK
from convserve_server.protocols.priority import PRIORITY
from convserve_server.protocols.request_ids import REQUEST_ID
from convserve_server.protocols.router import Router
from convserve_server.transports.base import IdleCallerDetector, TransportOptions
from convserve_server.transports.grpcio import GrpcioTransport
from convserve_server.transports.guard.caller_field import NO_GUARD, caller_of
from convserve_server.transports.margin import AnswerMargin

if TYPE_CHECKING:
    from pygrpc_native._native import DetailedEvent

log = logging.getLogger(__name__)

#: Whether Unix sockets may have names without files; see unix(7).
ABSTRACT = sys.platform == "linux"

#: Events fetched in one trip; more wait in Rust. A trip gives the GIL away, and beside a busy
#: engine it comes back milliseconds later: few trips must be enough for all that come.
_MAX_EVENTS = 4096
#: A trip with more events is late: what came last has the most time left, and is served first.
_LATE_EVENTS = 64
#: Why calls are refused that are many.
_OVERLOAD = frozenset({QueueFull.reason, CannotMeetDeadline.reason})
#: Header fields by which calls that are refused differ.
_DECISIVE = frozenset({PRIORITY, REQUEST_ID})
#: From handing an answer over to its last byte being with the kernel, generously, s.
_SETTLE_S = 0.1


class NativeTransport:
    """See Transport.

    Args:
        options: what to listen on, and the limits.
    """

    name = "native"

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        #: See TransportOptions.
        self.guard_field = options.guard_field
        self._folder = "" if ABSTRACT else tempfile.mkdtemp(prefix="convserve-")
        # Who does not know the name cannot guess it.
        name = f"convserve-{secrets.token_hex(16)}" if ABSTRACT else f"{self._folder}/grpcio.sock"
        self._socket = f"\0{name}" if ABSTRACT else name
        target = f"unix-abstract:{name}" if ABSTRACT else f"unix:{name}"
        self._grpcio = GrpcioTransport(options, target)
        self._thread = threading.Thread(target=self._receive, name="native", daemon=True)
        # Calls that wait for their answer, by their numbers; changed by any thread, each time by
        # one instruction.
        self.open: dict[int, _NativeCall] = {}
        # Whether calls of this trip may be refused before they are made: many came, or another was
        # refused in the trip before; and whether one was in this.
        self._refuses = False
        self.refused = False
        self._idle_caller = IdleCallerDetector()
        #: See there.
        self.margin = AnswerMargin()
        self._router: Router
        self._methods: tuple[str, ...]
        #: The library's own.
        self.front: NativeGrpcFront

    def start(self, router: Router) -> int:
        """See Transport.start."""
        self._router = router
        self._methods = router.unary_methods
        # Each answer wakes the library's thread, which would interrupt the thread that makes the
        # next answer.
        with patient_threads():
            self.front = NativeGrpcFront(
                address(self._options.host, self._options.port),
                [(path, False) for path in self._methods],
                call_details=True,
                keepalive_time_ms=self._options.keepalive_s * 1000,
                max_concurrent_streams=self._options.max_streams,
                reuse_port=self._options.reuse_port,
            )
        self._grpcio.start(router)
        self.front.set_fallback(self._socket)
        self.front.start()
        self._thread.start()
        return self.front.bound_port

    def flush(self, timeout_s: float) -> None:
        """See Transport.flush."""
        self._grpcio.flush(timeout_s)
        # Nothing reports when an answer is with the kernel, and those just given would be lost.
        time.sleep(min(timeout_s, _SETTLE_S))

    def close(self) -> None:
        """See Transport.close."""
        self._grpcio.close()
        self.front.close()
        self._thread.join()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> None:
        while (events := self.front.recv_batch_details(_MAX_EVENTS)) is not None:
            now = time.monotonic()
            idle_caller = self._idle_caller.next_call(others=bool(self.open) or len(events) > 1)
            late = len(events) > _LATE_EVENTS
            self._refuses, self.refused = late or self.refused, False
            # Each leaves the list before it is handled: what it brought need not stay in memory
            # while the others are, let alone until more come.
            if late:
                self._handle_late(events, now)
            elif len(events) == 1:
                self._handle(events.pop(), now, idle_caller)
            else:
                events.reverse()
                with HeldWakeUps():
                    while events:
                        self._handle(events.pop(), now, idle_caller)
            self._router.count_refused()

    def _handle_late(self, events: "list[DetailedEvent]", now: float) -> None:
        """Handles events that waited: first who left, then the calls, the last one first.

        Calls may be answered in any order. In the order in which they came each would have less
        time left than the next, and under overload all would be late.
        """
        left = {event[1] for event in events if event[0] != EVENT_CALL}
        for number in left:
            self._left(number)
        while events:
            event = events.pop()
            if event[0] == EVENT_CALL and event[1] not in left:
                self._handle(event, now, idle_caller=False)
            elif event[0] == EVENT_CALL:
                remaining = event[5] and event[5][2]
                late = remaining is not None and now + remaining <= time.monotonic()
                self._router.missed(self._methods[event[2]], late=late)

    def _handle(self, event: "DetailedEvent", now: float, idle_caller: bool) -> None:
        """Hands a call to the router, or ends one.

        Args:
            event: of the library.
            now: time.monotonic() at which it was fetched.
            idle_caller: see Call.
        """
        kind, number, method, payload, _, details = event
        if kind != EVENT_CALL or payload is None or details is None:
            self._left(number)
            return
        metadata, peer, remaining = details
        if self.guard_field and header_in(metadata, self.guard_field) is None:
            self.front.fail(number, NO_GUARD.code, NO_GUARD.message)
            return
        deadline = None if remaining is None else self.margin.deadline(now, remaining)
        try:
            if deadline is not None and deadline <= time.monotonic():
                # The library answers it, or its client has given it up: that costs no more.
                self._router.missed(self._methods[method], late=True)
                return
            if self._refuses and self._refuse(number, method, payload, deadline, peer, metadata):
                return
            call = _NativeCall(
                self, number, self._methods[method], payload, deadline, peer, metadata, idle_caller
            )
            self.open[number] = call
            self._router.handle(call)
        except Exception:
            # Whatever it was, the calls after this one must be served.
            log.exception("handling an event failed")

    def _refuse(
        self,
        number: int,
        method: int,
        payload: bytes,
        deadline: float | None,
        peer: str,
        metadata: Metadata,
    ) -> bool:
        """Refuses a call if others were refused just now, and it would be too; makes no call of it.

        Args:
            number: of the call.
            method: likewise.
            payload: its request.
            deadline: time.monotonic() at which its caller stops waiting; None: never.
            peer: who calls.
            metadata: header fields of the call.
        """
        if self.guard_field:
            return False
        for name, _ in metadata:
            if name in _DECISIVE:
                return False
        failure = self._router.refusal(
            self._methods[method], payload, peer, deadline, time.monotonic()
        )
        if failure is None:
            return False
        self.refused = True
        self.front.fail(number, failure.code, failure.message, _sendable(failure.trailers))
        return True

    def _left(self, number: int) -> None:
        """Ends the work on a call: its client has gone away, or its deadline has passed."""
        call = self.open.pop(number, None)
        if call is None:
            return
        try:
            if call.deadline is not None and (now := time.monotonic()) >= call.deadline:
                self.margin.note(call.arrived, call.deadline, now, gone=True)
            call.cancel()
        except Exception:
            log.exception("handling an event failed")


class _NativeCall(Call):
    """A call by its number, which is unique in its transport."""

    __slots__ = ("_metadata", "_number", "_peer", "_transport")

    def __init__(
        self,
        transport: NativeTransport,
        number: int,
        method: str,
        payload: bytes,
        deadline: float | None,
        peer: str,
        metadata: Metadata,
        idle_caller: bool,
    ) -> None:
        # Not by super(), which takes longer than what it calls.
        Call.__init__(self, method, payload, deadline, peer, idle_caller)
        self._metadata = metadata
        self._peer = peer
        self._transport = transport
        self._number = number

    def caller(self) -> Caller:
        return caller_of(self._transport.guard_field, self._peer, self._metadata)

    def header(self, name: str) -> str | bytes | None:
        return header_in(self._metadata, name)

    def send(self, payload: bytes) -> bool:
        transport, deadline = self._transport, self.deadline
        transport.open.pop(self._number, None)
        sent = transport.front.respond(self._number, payload)
        if self.idle_caller:
            # Nothing else is to be done first: the library's patient thread sends it now.
            os.sched_yield()
        if deadline is not None:
            transport.margin.note(self.arrived, deadline, time.monotonic(), gone=not sent)
        return sent

    def send_failure(self, failure: Failure) -> None:
        self._transport.open.pop(self._number, None)
        if failure.reason in _OVERLOAD:
            self._transport.refused = True
        trailers = _sendable(failure.trailers)
        if request_id := self.request_id():
            trailers = [*trailers, (REQUEST_ID, request_id)]
        self._transport.front.fail(self._number, failure.code, failure.message, trailers)


@lru_cache(maxsize=1024)
def _sendable(trailers: Metadata) -> list[tuple[str, str | bytes]]:
    """Returns what of a failure's trailers can be sent.

    The library refuses keys that begin with "grpc-" but for the status's details, so its clients
    back off as they see fit.
    """
    return [(key, value) for key, value in trailers if key != PUSHBACK]
