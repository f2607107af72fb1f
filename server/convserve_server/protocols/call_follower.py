"""Follows calls from their arrival to their end, for the access log and for traces.

It is the outermost of all: it sees also those that an interceptor, or the router itself, refuses.
"""

import logging
import time
from typing import Protocol

from google.rpc import code_pb2

from convserve_server.core.errors import InternalFault, quoted
from convserve_server.protocols.base import Call, Caller, Failure, Stream
from convserve_server.protocols.request_ids import new_id
from convserve_server.telemetry.access_log import AccessLine, AccessLog
from convserve_server.telemetry.call_notes import CallNotes, CallTrace, EndedCall
from convserve_server.telemetry.trace_parent import Header

log = logging.getLogger(__name__)

#: Statuses of calls that a fault of ours, a deadline or a limit has ended.
_FAILED = frozenset(
    {
        code_pb2.UNKNOWN,
        code_pb2.DEADLINE_EXCEEDED,
        code_pb2.RESOURCE_EXHAUSTED,
        code_pb2.INTERNAL,
        code_pb2.UNAVAILABLE,
        code_pb2.DATA_LOSS,
    }
)
#: A protocol may have the statuses of HTTP.
_HTTP_FAILED = 500

_NOBODY = Caller("", ())


class Traces(Protocol):
    """Where calls that are traced go; see Tracing."""

    def trace(self, header: Header) -> CallTrace | None:
        """Returns the identity of a call that is to be traced; None if it is not."""

    def call_ended(self, call: EndedCall) -> None:
        """Has the spans of a call sent, later."""


class CallFollower:
    """Notes who calls, and what became of it.

    Args:
        access_log: for lines of calls that have ended; None: there are none.
        traces: for calls that are traced; None: none is.

    Attributes:
        active: whether calls are followed from their arrival on.
    """

    def __init__(self, access_log: AccessLog | None = None, traces: Traces | None = None) -> None:
        self._access_log = AccessLog() if access_log is None else access_log
        self._traces = traces
        self.active = traces is not None or self._access_log.on

    def set_access_log(self, mode: str, share: float) -> None:
        """Changes which calls have a line from now on; see AccessLog."""
        self._access_log.follow(mode, share)
        self.active = self._traces is not None or self._access_log.on

    def begin(self, call: Call) -> None:
        """Gives a call notes if somebody wants to know; only while active."""
        trace = None if self._traces is None else self._traces.trace(call.header)
        if trace is not None or self._access_log.on:
            call.notes = CallNotes(trace)

    def ended(self, call: Call, failure: Failure | None, now: float) -> None:
        """Sees a call that has notes, or has failed.

        Args:
            call: that has ended.
            failure: that it ended with; None for a result.
            now: time.monotonic().
        """
        try:
            self._ended(call, failure, now)
        except Exception:
            # The call is answered, and whoever waits for its end must not wait for ever.
            log.exception("following a call failed")

    def _ended(self, call: Call, failure: Failure | None, now: float) -> None:
        notes, known = call.notes, True
        if notes is None:
            # Its caller may look for it by an id of its own, which the log must have beside that of
            # the traceback.
            known = False
            if failure is None or failure.reason != InternalFault.reason or not call.request_id():
                return
            notes = CallNotes()
        failed = failure is not None and is_failed(failure)
        wanted = self._access_log.wants(failed=failed) if known else self._access_log.allows()
        if not wanted and notes.trace is None:
            return
        caller = call.caller()
        ended = EndedCall(
            notes,
            call.method,
            call.grpc,
            caller.peer,
            _name(failure),
            "" if failure is None else failure.reason,
            call.arrived,
            now,
        )
        if wanted:
            line = _line(ended, call.request_id(), caller, failure)
            self._access_log.write(line, failed=failed)
        if notes.trace is not None and self._traces is not None:
            self._traces.call_ended(ended)

    def stream_failed(self, stream: Stream, failure: Failure, began: float) -> None:
        """Sees a stream that ends in an error; its messages are calls of their own."""
        self._write_rest(stream.method, failure, began, stream.caller(), stream.request_id())

    def missed(self, method: str, failure: Failure) -> None:
        """Sees a call that its transport could not hand over, and of which little is known.

        Args:
            method: its path, as the caller gave it.
            failure: that it ended with.
        """
        self._write_rest(quoted(method), failure, time.monotonic(), _NOBODY, "")

    def _write_rest(
        self, method: str, failure: Failure, began: float, caller: Caller, request_id: str
    ) -> None:
        """Writes a line of what was no call of the router's."""
        failed = is_failed(failure)
        if self._access_log.wants(failed=failed):
            ended = EndedCall(
                CallNotes(), method, True, caller.peer, _name(failure), failure.reason, began,
                time.monotonic(),
            )  # fmt: skip
            line = _line(ended, request_id or new_id(), caller, failure)
            self._access_log.write(line, failed=failed)


def is_failed(failure: Failure) -> bool:
    """Returns whether a fault of ours, a deadline or a limit has ended a call."""
    return failure.code in _FAILED or failure.code >= _HTTP_FAILED


def _name(failure: Failure | None) -> str:
    if failure is None:
        return "OK"
    known = failure.code in code_pb2.Code.values()
    return code_pb2.Code.Name(failure.code) if known else str(failure.code)


def _line(ended: EndedCall, request_id: str, caller: Caller, failure: Failure | None) -> AccessLine:
    notes = ended.notes
    fault = failure is not None and failure.reason == InternalFault.reason
    return AccessLine(
        request_id,
        caller.peer,
        caller.identity,
        ended.method,
        notes.model,
        notes.images,
        ended.code,
        ended.reason,
        1000 * (ended.ended - ended.arrived),
        "" if notes.trace is None else f"{notes.trace.trace_id:032x}",
        failure.message if failure is not None and fault else "",
    )
