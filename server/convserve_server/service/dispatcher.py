"""Leads every call to its method and its answer back to the front; knows what is in flight."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from convserve_server.errors import InternalFault, NotReady, ServeError
from convserve_server.front import Call, Cancellation, Event, Front

#: Takes the answer to a call.
Reply = Callable[[bytes | ServeError], None]
#: Ends work on a call that nobody waits for; its reply may still be called.
Cancel = Callable[[], None]
#: Starts work on a call. Replies now or later, from any thread; returns how to cancel, if it can.
Method = Callable[[Call, Reply], Cancel | None]


class _Open:
    """A call in flight, and how to cancel it where that is known."""

    __slots__ = ("cancel",)

    def __init__(self) -> None:
        self.cancel: Cancel | None = None


class Dispatcher:
    """The handler behind a front.

    Args:
        front: takes the answers.
        methods: by path, "/package.Service/Method".
    """

    def __init__(self, front: Front, methods: Mapping[str, Method]) -> None:
        self._front = front
        self._methods = methods
        # Each call is taken off once, by whoever answers or cancels it: dict.pop is atomic.
        self._active: dict[int, _Open] = {}
        # Answers on their way to the front; it may be closed only after them.
        self._answering: set[int] = set()
        # Numbers for answers, and for the times that somebody asked how many there are. Any thread
        # may answer; next() of a count is atomic and costs less than a lock.
        self._numbers = itertools.count()
        self._asked = itertools.count()
        self._draining = False
        #: When the last call came in, time.monotonic().
        self._last_call = 0.0
        # Set from when somebody waits for calls to end; until then nobody needs to be told.
        self._watched = False
        self._changed = threading.Condition()

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
        """Wait until no call is in flight and none has come in for quiet_s, at most timeout_s."""
        end = time.monotonic() + timeout_s
        with self._changed:
            self._watched = True
            while (now := time.monotonic()) < end:
                until = end if self._active else min(end, self._last_call + quiet_s)
                if until <= now:
                    return
                self._changed.wait(until - now)

    def wait_idle(self, timeout_s: float) -> int:
        """Wait until no call is in flight, at most so long; returns how many are left."""
        with self._changed:
            self._watched = True
            self._changed.wait_for(lambda: not self._active and not self._answering, timeout_s)
            return len(self._active) + len(self._answering)

    def answered(self) -> int:
        """Calls answered so far by their methods, with a result or an error."""
        # To ask a count is to take a number.
        return next(self._numbers) - next(self._asked)

    def abandon(self) -> None:
        """Answer all calls in flight with UNAVAILABLE and stop working on them."""
        for call_id in list(self._active):
            self._finish(call_id, NotReady("the server stopped before the answer was there"))

    def _call(self, call: Call) -> None:
        if self._draining:
            self._front.fail(call.id, NotReady("the server is stopping"))
            return
        # Not the call, whose payload would stay in memory until its answer.
        call_id = call.id
        open_ = self._active[call_id] = _Open()
        self._last_call = time.monotonic()
        try:
            method = self._methods[call.method]
            open_.cancel = method(call, lambda outcome: self._reply(call_id, outcome))
        except ServeError as error:
            self._reply(call_id, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the front
            self._reply(call_id, InternalFault(call.method, error))

    def _reply(self, call_id: int, outcome: bytes | ServeError) -> None:
        self._answering.add(call_id)
        try:
            if self._active.pop(call_id, None) is None:
                return
            next(self._numbers)
            if isinstance(outcome, ServeError):
                self._front.fail(call_id, outcome.released())
            else:
                self._front.respond(call_id, outcome)
        finally:
            self._answering.discard(call_id)
            self._tell()

    def _cancel(self, call_id: int) -> None:
        open_ = self._active.pop(call_id, None)
        if open_ is not None and open_.cancel is not None:
            open_.cancel()
        self._tell()

    def _finish(self, call_id: int, error: ServeError) -> None:
        open_ = self._active.pop(call_id, None)
        if open_ is None:
            return
        self._front.fail(call_id, error)
        if open_.cancel is not None:
            open_.cancel()

    def _tell(self) -> None:
        """Wake whoever waits for calls to end."""
        if self._watched:
            with self._changed:
                self._changed.notify_all()
