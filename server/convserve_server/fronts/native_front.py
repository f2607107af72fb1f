"""The fast front: pygrpc-native's HTTP/2 in Rust, outside the GIL; calls reach Python in batches.

It speaks unary calls without TLS. Streams, health and reflection it passes on to a grpcio front
on a Unix socket, whose call ids are negative. On Linux that socket has a name and no file: what
cleans temporary folders cannot take it away, and none has to be there.

Source: https://github.com/pygrpc/pygrpc-native (docs/low-level-api.md).
"""

import itertools
import logging
import secrets
import shutil
import sys
import tempfile
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from convserve_server.errors import PUSHBACK, MessageTooLarge, ServeError, fitting, to_trailers
from convserve_server.front import (
    MAX_STREAMS,
    Call,
    Cancellation,
    Event,
    FrontOptions,
    Handler,
    Origin,
)
from convserve_server.fronts.grpcio_front import ALONE_IN_A_ROW, GrpcioFront
from convserve_server.host.port import address

if TYPE_CHECKING:
    from pygrpc_native._native import DetailedEvent

log = logging.getLogger(__name__)

#: Whether Unix sockets may have names without files; see unix(7).
ABSTRACT = sys.platform == "linux"

#: Events taken in one trip; more wait in Rust.
_MAX_EVENTS = 64
#: From handing an answer over to its last byte being with the kernel, generously, s.
_SETTLE_S = 0.1


class NativeFront:
    """See Front.

    Args:
        options: what to listen on, and the limits.
    """

    name = "native"

    def __init__(self, options: FrontOptions) -> None:
        self._options = options
        self._methods = options.methods
        self._folder = "" if ABSTRACT else tempfile.mkdtemp(prefix="convserve-")
        # Who does not know the name cannot guess it.
        name = f"convserve-{secrets.token_hex(16)}" if ABSTRACT else f"{self._folder}/grpcio.sock"
        self._socket = f"\0{name}" if ABSTRACT else name
        target = f"unix-abstract:{name}" if ABSTRACT else f"unix:{name}"
        self._grpcio = GrpcioFront(options, target, itertools.count(-1, -1))
        self._thread = threading.Thread(target=self._receive, name="front", daemon=True)
        # Calls that wait for their answer; changed by any thread, each time by one instruction.
        self._open: set[int] = set()
        self._alone_in_a_row = 0
        self._handler: Handler
        self._front: NativeGrpcFront

    def start(self, handler: Handler) -> int:
        """See Front.start."""
        self._handler = handler
        self._front = NativeGrpcFront(
            address(self._options.host, self._options.port),
            [(path, False) for path in self._methods],
            call_details=True,
            keepalive_time_ms=self._options.keepalive_s * 1000,
            max_concurrent_streams=MAX_STREAMS,
            reuse_port=self._options.reuse_port,
        )
        self._grpcio.start(handler)
        self._front.set_fallback(self._socket)
        self._front.start()
        self._thread.start()
        return self._front.bound_port

    def respond(self, call_id: int, payload: bytes) -> None:
        """See Front.respond."""
        if call_id < 0:
            self._grpcio.respond(call_id, payload)
        else:
            self._open.discard(call_id)
            self._front.respond(call_id, payload)

    def fail(self, call_id: int, error: ServeError) -> None:
        """See Front.fail."""
        if call_id < 0:
            self._grpcio.fail(call_id, error)
        else:
            # It refuses keys that begin with "grpc-", so its clients back off as they see fit.
            self._open.discard(call_id)
            trailers = [(key, value) for key, value in to_trailers(error) if key != PUSHBACK]
            self._front.fail(call_id, error.code, fitting(str(error)), trailers)

    def set_health(self, service: str, serving: bool | None) -> None:
        """See Front.set_health."""
        self._grpcio.set_health(service, serving)

    def drain(self) -> None:
        """See Front.drain."""
        self._grpcio.drain()

    def flush(self, timeout_s: float) -> None:
        """See Front.flush."""
        self._grpcio.flush(timeout_s)
        # Nothing tells when an answer is with the kernel, and those just given would be lost.
        time.sleep(min(timeout_s, _SETTLE_S))

    def close(self) -> None:
        """See Front.close."""
        self._grpcio.close()
        self._front.close()
        self._thread.join()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self) -> None:
        while (events := self._front.recv_batch_details(_MAX_EVENTS)) is not None:
            # Each leaves the list before it is handled: what it brought need not stay in memory
            # while the others are, let alone until more come.
            alone = self._is_alone(events)
            events.reverse()
            while events:
                self._handle(events.pop(), alone)

    def _is_alone(self, events: "list[DetailedEvent]") -> bool:
        """Whether these are one call that is the only one open, as the ones before it were."""
        self._alone_in_a_row = 0 if self._open or len(events) > 1 else self._alone_in_a_row + 1
        return self._alone_in_a_row >= ALONE_IN_A_ROW

    def _handle(self, event: "DetailedEvent", alone: bool) -> None:
        try:
            translated = self._translate(event, alone)
            if translated is not None:
                self._handler((translated,))
        except Exception:
            # Whatever it was, the calls after this one must be served.
            log.exception("handling an event failed")

    def _translate(self, event: "DetailedEvent", alone: bool) -> Event | None:
        """An event of the native front as ours; None if it is refused here for its size."""
        kind, call_id, method, payload, _, details = event
        if kind != EVENT_CALL or payload is None or details is None:
            self._open.discard(call_id)
            return Cancellation(call_id)
        if len(payload) > self._options.max_message_bytes:
            self.fail(call_id, self._too_large(len(payload)))
            return None
        metadata, peer, remaining = details
        deadline = None if remaining is None else time.monotonic() + remaining
        self._open.add(call_id)
        origin = partial(Origin, peer, metadata)
        return Call(call_id, self._methods[method], payload, deadline, peer, origin, alone)

    def _too_large(self, size: int) -> MessageTooLarge:
        """In the words of grpcio, so that clients see no difference."""
        limit = self._options.max_message_bytes
        return MessageTooLarge(f"SERVER: Received message larger than max ({size} vs. {limit})")
