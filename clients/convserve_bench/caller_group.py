"""A share of the callers, and the transport that they use: another one if it is lost or leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import repeat

from convserve_bench.outcomes import Ended, Status
from convserve_bench.transport import Transport, TransportLost

RECONNECT_PAUSE_S = 0.2

Transports = dict[int, tuple["CallerGroup", Transport]]
"""Every connection of all groups, and whose it is, by the number of its socket."""


class CallerGroup:
    """Callers of one connection.

    A call that was begun and cannot be sent at once (the connection is being made anew, or the
    server accepts no more streams) waits here, and its wait counts.

    Attributes:
        callers: Most calls that are begun and not over.
        lost: How many connections ended with calls in flight, or before one was made of them.
        reason: Why the last one of these did.
    """

    def __init__(
        self, callers: int, connect: Callable[[], Transport], transports: Transports
    ) -> None:
        """Makes a group, which connects on the first repair.

        Args:
            callers: Most calls that are begun and not over.
            connect: Begins to make a connection; raises TransportLost.
            transports: Where it adds its connections, and removes them again.
        """
        self.callers = callers
        self._all = transports
        self.lost = 0
        self.reason = ""
        self._connect = connect
        self._current: Transport | None = None
        self._waiting: deque[float] = deque()
        self._connect_at_s = 0.0
        # The next stream of each connection at moments past: what has a lower number is older.
        self._marks: dict[Transport, deque[tuple[float, int]]] = {}

    @property
    def busy(self) -> int:
        """Calls that are begun and not over."""
        return len(self._waiting) + sum(transport.connection.in_flight for transport in self._marks)

    @property
    def ready(self) -> bool:
        """Whether calls can be made now."""
        return self._current is not None and self._current.connection.ready

    @property
    def free(self) -> int:
        """Callers that could begin a call that is sent at once."""
        if self._current is None or self._waiting:
            return 0
        return min(self.callers - self.busy, self._current.connection.capacity)

    def begin(self, now_s: float, starts: Iterable[float]) -> None:
        """Begins calls, each counted from its moment."""
        self._waiting.extend(starts)
        self.pump(now_s)

    def begin_many(self, now_s: float, count: int) -> None:
        """Begins calls that are counted from now."""
        transport = self._current
        if transport is not None and not self._waiting and transport.connection.capacity >= count:
            with suppress(TransportLost):  # Reading it raises the same, with the reason.
                transport.start(repeat(now_s, count))
        else:
            self.begin(now_s, repeat(now_s, count))

    def pump(self, now_s: float) -> None:
        """Sends calls that wait, as many as the connection allows."""
        transport = self._current
        if transport is None or not self._waiting:
            return
        count = min(len(self._waiting), transport.connection.capacity)
        if count > 0:
            with suppress(TransportLost):  # As above.
                transport.start([self._waiting.popleft() for _ in range(count)])
        if transport.connection.going_away:
            self.retire(transport)
            self.repair(now_s)

    def read(self, transport: Transport, now_s: float) -> list[Ended]:
        """Takes what has come over a connection, and returns the calls that are over."""
        ended: list[Ended] = []
        try:
            ended += transport.read()
            transport.flush()
        except TransportLost as error:
            ended += self.drop(transport, error)
        connection = transport.connection
        if connection.going_away:
            self._waiting.extendleft(reversed(connection.unprocessed))
            connection.unprocessed.clear()
            self.retire(transport)
            self.repair(now_s)
        if self._waiting:
            self.pump(now_s)
        return ended

    def write(self, transport: Transport) -> list[Ended]:
        """Goes on sending over a connection whose socket accepts bytes again."""
        try:
            transport.write()
        except TransportLost as error:
            return self.drop(transport, error)
        return []

    def expire(self, now_s: float, timeout_s: float) -> list[Ended]:
        """Gives up calls that were sent longer ago, to the length of a tick."""
        late: list[float] = []
        for transport in [*self._marks]:
            marks = self._marks[transport]
            while marks and marks[0][0] + timeout_s <= now_s:
                late += transport.connection.expire(marks.popleft()[1])
            marks.append((now_s, transport.connection.next_stream))
            with suppress(TransportLost):  # As above.
                transport.flush()
        status = Status("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s")
        return [Ended(started, status, b"") for started in late]

    def repair(self, now_s: float) -> None:
        """Connects if there is no connection, not too soon after the last attempt."""
        if self._current is None and now_s >= self._connect_at_s:
            self._connect_at_s = now_s + RECONNECT_PAUSE_S
            try:
                transport = self._connect()
            except TransportLost as error:
                self.lost += 1
                self.reason = str(error)
                return
            self._current = transport
            self._marks[transport] = deque()
            self._all[transport.fd] = (self, transport)

    def retire(self, transport: Transport) -> None:
        """Begins no more calls over a connection, and closes it once it has none."""
        if transport is self._current:
            self._current = None
        if not transport.connection.in_flight and transport in self._marks:
            self._remove(transport)

    def drop(self, transport: Transport, error: TransportLost) -> list[Ended]:
        """Forgets a connection that is gone; returns calls that were over, or went with it."""
        starts = transport.connection.lost()
        if starts or transport is self._current:
            self.lost += 1
            self.reason = str(error)
        if transport is self._current:
            self._current = None
        self._remove(transport)
        status = Status("UNAVAILABLE", str(error))
        return [*error.ended, *(Ended(started, status, b"") for started in starts)]

    def give_up_waiting(self) -> int:
        """Forgets the calls that wait, and returns how many these were."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def close(self) -> None:
        """Closes all its connections."""
        for transport in [*self._marks]:
            self._remove(transport)

    def _remove(self, transport: Transport) -> None:
        del self._marks[transport]
        del self._all[transport.fd]
        transport.close()
