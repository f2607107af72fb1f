"""Leads every call to its method and its answer back to the front; knows what is in flight."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from convserve_server.errors import InternalFault, NotReady, ServeError
from convserve_server.front import Call, Cancellation, Event, Front

log = logging.getLogger(__name__)

#: Takes the answer to a call.
Reply = Callable[[bytes | ServeError], None]
#: Ends work on a call that nobody waits for; its reply may still be called.
Cancel = Callable[[], None]
#: Starts work on a call. Replies now or later, from any thread; returns how to cancel, if it can.
Method = Callable[[Call, Reply], Cancel | None]


def _nothing() -> None:
    """Cancels what cannot be cancelled."""


class Dispatcher:
    """The handler behind a front.

    Args:
        front: takes the answers.
        methods: by path, "/package.Service/Method".
    """

    def __init__(self, front: Front, methods: Mapping[str, Method]) -> None:
        self._front = front
        self._methods = methods
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._active: dict[int, Cancel] = {}
        # Answers on their way to the front; it may be closed only after them.
        self._answering = 0
        self._draining = False
        #: When the last call came in, time.monotonic().
        self._last_call = 0.0

    def handle(self, events: Sequence[Event]) -> None:
        """Take events from the front."""
        for event in events:
            if isinstance(event, Cancellation):
                self._cancel(event.id)
            else:
                self._call(event)

    def drain(self) -> None:
        """Refuse new calls; those in flight go on."""
        self._draining = True

    def wait_quiet(self, quiet_s: float, timeout_s: float) -> None:
        """Wait until no call has been in flight or has come in for quiet_s, at most timeout_s."""
        end = time.monotonic() + timeout_s
        with self._idle:
            while (now := time.monotonic()) < end:
                until = end if self._active else min(end, self._last_call + quiet_s)
                if until <= now:
                    return
                self._idle.wait(until - now)

    def wait_idle(self, timeout_s: float) -> int:
        """Wait until no call is in flight, at most so long; returns how many are left."""
        with self._idle:
            self._idle.wait_for(lambda: not self._active and not self._answering, timeout_s)
            return len(self._active) + self._answering

    def abandon(self) -> None:
        """Answer all calls in flight with UNAVAILABLE and stop working on them."""
        for call_id in list(self._active):
            self._finish(call_id, NotReady("the server stopped before the answer was there"))

    def _call(self, call: Call) -> None:
        if self._draining:
            self._front.fail(call.id, NotReady("the server is stopping"))
            return
        with self._lock:
            self._active[call.id] = _nothing
            self._last_call = time.monotonic()
        try:
            method = self._methods[call.method]
            cancel = method(call, lambda outcome: self._reply(call.id, outcome))
        except ServeError as error:
            self._reply(call.id, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the front
            self._reply(call.id, InternalFault(call.method, error))
        else:
            # Unless it has been answered already.
            with self._lock:
                if cancel is not None and call.id in self._active:
                    self._active[call.id] = cancel

    def _reply(self, call_id: int, outcome: bytes | ServeError) -> None:
        if self._forget(call_id, answering=True) is None:
            return
        try:
            if isinstance(outcome, ServeError):
                self._front.fail(call_id, outcome)
            else:
                self._front.respond(call_id, outcome)
        finally:
            with self._lock:
                self._answering -= 1
                self._idle.notify_all()

    def _cancel(self, call_id: int) -> None:
        cancel = self._forget(call_id)
        if cancel is not None:
            cancel()

    def _finish(self, call_id: int, error: ServeError) -> None:
        cancel = self._forget(call_id)
        if cancel is not None:
            self._front.fail(call_id, error)
            cancel()

    def _forget(self, call_id: int, answering: bool = False) -> Cancel | None:
        """Take a call off the list; None if it was not on it (answered or cancelled).

        Args:
            call_id: of the call.
            answering: count its answer as on its way.
        """
        with self._lock:
            cancel = self._active.pop(call_id, None)
            if cancel is not None and answering:
                self._answering += 1
            else:
                self._idle.notify_all()
            return cancel
