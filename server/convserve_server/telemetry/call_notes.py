"""What is noted of a call and of its batches, for the access log and for traces.

Most calls have no notes: nobody wants to know. Those that have carry them through the core, which
writes down what it knows, as plain numbers; times are of time.monotonic(). What is made of them is
for others, once the call has ended.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_TRACE_BITS, _SPAN_BITS = 128, 64


class CallTrace:
    """The identity of a call that is traced.

    Args:
        trace_id: of the trace that it is a part of; 0: a trace of its own begins.
        parent_id: of the span that it is a part of; 0: none.
        state: what the caller's tracestate says, which is passed on.
        batch_ended: takes the notes of each batch that the call was in.
    """

    __slots__ = ("batch_ended", "parent_id", "span_id", "state", "trace_id")

    def __init__(
        self,
        trace_id: int,
        parent_id: int,
        state: str,
        batch_ended: "Callable[[BatchNotes], None]",
    ) -> None:
        self.trace_id = trace_id or new_trace_id()
        self.parent_id = parent_id
        self.span_id = new_span_id()
        self.state = state
        self.batch_ended = batch_ended


class CallNotes:
    """What is known of one call.

    Args:
        trace: its identity; None: it is not traced.

    Attributes:
        request_id: that the log has of the call; empty while nobody has asked for it.
        model: version that answers, as "NAME/VERSION"; empty while not known.
        images: of the call, or rows of tensors.
        begun: when the core had it; 0 before.
        decode: when its files were queued to be decoded, when the first one was begun, and when the
            last one was done; zeros without files.
        queued: when its images were queued for the engine; 0 before.
        batches: that it was in.
    """

    __slots__ = ("batches", "begun", "decode", "images", "model", "queued", "request_id", "trace")

    def __init__(self, trace: CallTrace | None = None) -> None:
        self.trace = trace
        self.request_id = ""
        self.model = ""
        self.images = 0
        self.begun = 0.0
        self.decode = (0.0, 0.0, 0.0)
        self.queued = 0.0
        self.batches: list[BatchNotes] = []

    def begin(self, model: str, images: int, now: float) -> None:
        """Notes that the core has the call; once more if its version is unloaded on the way.

        Args:
            model: as "NAME/VERSION".
            images: of the call.
            now: time.monotonic().
        """
        self.model, self.images = model, images
        self.begun = self.begun or now


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that has ended.

    Attributes:
        notes: of the call.
        method: "/package.Service/Method".
        grpc: whether it came over gRPC; else it came over HTTP/1.1.
        peer: address of the client, as "ipv4:127.0.0.1:51234".
        code: name of the status, as "OK".
        reason: see ServeError.reason; empty for a result.
        arrived: time.monotonic().
        ended: time.monotonic().
    """

    notes: CallNotes
    method: str
    grpc: bool
    peer: str
    code: str
    reason: str
    arrived: float
    ended: float


class BatchNotes:
    """What is known of one batch with calls that are traced.

    Args:
        model: as "NAME/VERSION".
        images: in the batch, also those of calls that are not traced.
        started: when it was formed.
        ran: when the engine was done.
        failed: whether the engine has failed.
        calls: that are traced, at least one.

    Attributes:
        ended: when its calls were answered; 0 before.
        trace_id, span_id: the identity of the batch, whose calls may be parts of many traces.
    """

    __slots__ = (
        "calls",
        "ended",
        "failed",
        "images",
        "model",
        "ran",
        "span_id",
        "started",
        "trace_id",
    )

    def __init__(
        self,
        model: str,
        images: int,
        started: float,
        ran: float,
        failed: bool,
        calls: Sequence[CallTrace],
    ) -> None:
        self.model = model
        self.images = images
        self.started = started
        self.ran = ran
        self.failed = failed
        self.calls = calls
        self.ended = 0.0
        self.trace_id, self.span_id = new_trace_id(), new_span_id()

    def end(self) -> None:
        """Notes that all its calls are answered, and hands the notes on."""
        self.ended = time.monotonic()
        self.calls[0].batch_ended(self)


def note_batch(
    model: str,
    images: int,
    started: float,
    ran: float,
    noted: Sequence[CallNotes],
    *,
    failed: bool = False,
) -> BatchNotes | None:
    """Returns the notes of a batch that has run; None if none of its calls is traced.

    Args:
        model: as "NAME/VERSION".
        images: in the batch.
        started: when it was formed, time.monotonic().
        ran: when the engine was done, time.monotonic().
        noted: what is noted of its calls, which are not answered yet.
        failed: whether the engine has failed.
    """
    traced = [notes for notes in noted if notes.trace is not None]
    if not traced:
        return None
    calls = [notes.trace for notes in traced if notes.trace is not None]
    batch = BatchNotes(model, images, started, ran, failed, calls)
    for notes in traced:
        notes.batches.append(batch)
    return batch


def new_trace_id() -> int:
    """Returns the id of a new trace: random, not 0."""
    return random.getrandbits(_TRACE_BITS) or 1


def new_span_id() -> int:
    """Returns the id of a new span: random, not 0."""
    return random.getrandbits(_SPAN_BITS) or 1
