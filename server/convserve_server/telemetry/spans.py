"""From what was noted of a call, or of a batch, to the spans of OpenTelemetry.

    trace of the call                          trace of the batch
    convserve.v1.Classifier/Classify ◀─links─▶ batch
    ├── receive   parsed and checked           └── run   the engine
    ├── decode    files into pixels
    ├── queue     until the batch began
    └── answer    since the engine was done

They are made when both have ended, not by the SDK's tracer: that would cost the thread that serves
several times as much, and could not make a link to what has not begun.

Source: https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from convserve_server.telemetry.call_notes import (
    BatchNotes,
    CallTrace,
    EndedCall,
    new_span_id,
)

#: Most links of a span, as the SDK has it.
_MOST_LINKS = 128

#: Statuses that are the server's fault, by the source above.
_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("convserve")
_OK, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

_Attributes = Mapping[str, str | int | float]


class SpanMaker:
    """Makes the spans.

    Args:
        resource: who has made them.
    """

    def __init__(self, resource: Resource) -> None:
        self._resource = resource

    def of_call(self, call: EndedCall, epoch_s: float) -> Iterator[ReadableSpan]:
        """Yields the span of a call and those within it.

        Args:
            call: that has ended.
            epoch_s: what time.monotonic() is to be added to for s since 1970.
        """
        notes = call.notes
        trace = notes.trace
        assert trace is not None
        own = _context(trace.trace_id, trace.span_id, trace.state)
        parent = (
            _context(trace.trace_id, trace.parent_id, trace.state, remote=True)
            if trace.parent_id
            else None
        )
        links = [Link(_context(one.trace_id, one.span_id)) for one in notes.batches[:_MOST_LINKS]]
        yield ReadableSpan(
            call.method.removeprefix("/"),
            own,
            parent,
            self._resource,
            _call_attributes(call),
            links=links,
            kind=SpanKind.SERVER,
            status=_ERROR if call.code in _FAULTS else _OK,
            start_time=_ns(call.arrived, epoch_s),
            end_time=_ns(call.ended, epoch_s),
            instrumentation_scope=_SCOPE,
        )
        for name, began, ended in _stages(call):
            yield self._within(own, name, began, ended, epoch_s)

    def of_batch(self, batch: BatchNotes, epoch_s: float) -> Iterator[ReadableSpan]:
        """Yields the span of a batch and that of its run.

        Args:
            batch: that has ended.
            epoch_s: see of_call.
        """
        own = _context(batch.trace_id, batch.span_id)
        attributes: _Attributes = {
            "convserve.model": batch.model,
            "convserve.images": batch.images,
            "convserve.traced_calls": len(batch.calls),
        }
        status = _ERROR if batch.failed else _OK
        yield ReadableSpan(
            "batch",
            own,
            None,
            self._resource,
            attributes,
            links=[Link(_of(call)) for call in batch.calls[:_MOST_LINKS]],
            status=status,
            start_time=_ns(batch.started, epoch_s),
            end_time=_ns(batch.ended, epoch_s),
            instrumentation_scope=_SCOPE,
        )
        yield self._within(own, "run", batch.started, batch.ran, epoch_s, status)

    def _within(
        self,
        parent: SpanContext,
        name: str,
        began: float,
        ended: float,
        epoch_s: float,
        status: Status = _OK,
    ) -> ReadableSpan:
        own = _context(parent.trace_id, new_span_id())
        return ReadableSpan(
            name,
            own,
            parent,
            self._resource,
            {},
            status=status,
            start_time=_ns(began, epoch_s),
            end_time=_ns(ended, epoch_s),
            instrumentation_scope=_SCOPE,
        )


def _stages(call: EndedCall) -> Iterator[tuple[str, float, float]]:
    """Yields name, start and end of what a call went through, as far as it came."""
    notes = call.notes
    if notes.begun:
        yield "receive", call.arrived, notes.begun
    queued, _, decoded = notes.decode
    if decoded:
        yield "decode", queued, decoded
    if notes.queued:
        batches = notes.batches
        yield "queue", notes.queued, batches[0].started if batches else call.ended
        if batches:
            yield "answer", batches[-1].ran, call.ended


def _call_attributes(call: EndedCall) -> _Attributes:
    attributes: dict[str, str | int | float] = {
        "rpc.method": call.method.removeprefix("/"),
        "rpc.response.status_code": call.code,
        "network.protocol.name": "http",
        "network.protocol.version": "2" if call.grpc else "1.1",
    }
    if call.grpc:
        attributes["rpc.system.name"] = "grpc"
    kind, _, address = call.peer.partition(":")
    if kind in ("ipv4", "ipv6"):
        host, _, port = unquote(address).rpartition(":")
        attributes["network.peer.address"] = host.strip("[]")
        if port.isdecimal():
            attributes["network.peer.port"] = int(port)
    notes = call.notes
    if notes.model:
        attributes["convserve.model"] = notes.model
        attributes["convserve.images"] = notes.images
    _, began, _ = notes.decode
    if began:
        attributes["convserve.decode_wait_us"] = round((began - notes.decode[0]) * 1e6)
    if notes.request_id:
        attributes["convserve.request_id"] = notes.request_id
    if call.reason:
        attributes["error.type"] = call.code
        attributes["convserve.reason"] = call.reason
    return attributes


def _of(call: CallTrace) -> SpanContext:
    return _context(call.trace_id, call.span_id, call.state)


def _context(trace_id: int, span_id: int, state: str = "", remote: bool = False) -> SpanContext:
    given = TraceState.from_header([state]) if state else None
    return SpanContext(trace_id, span_id, remote, _SAMPLED, given)


def _ns(moment: float, epoch_s: float) -> int:
    return round((moment + epoch_s) * 1e9)
