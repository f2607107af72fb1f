"""A share of the callers, and the connection that they use: another one if it is lost or leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import repeat

from convserve.bench.link import Link, LinkLost
from convserve.bench.outcomes import Ended, Status

RECONNECT_PAUSE_S = 0.2

Links = dict[int, tuple["Lane", Link]]
"""Every connection of all lanes, and whose it is, by the number of its socket."""


class Lane:
    """Callers of one connection.

    A call that was begun and finds no room (the connection is being made anew, or the server takes
    no more streams) waits here, and its wait counts.

    Attributes:
        callers: Most calls that are begun and not over.
        lost: How many connections ended with calls in flight, or before one was made of them.
        reason: Why the last one of these did.
    """

    def __init__(self, callers: int, connect: Callable[[], Link], links: Links) -> None:
        """Makes a lane, which connects on the first repair.

        Args:
            callers: Most calls that are begun and not over.
            connect: Begins to make a connection; raises LinkLost.
            links: Where it enters its connections, and takes them out again.
        """
        self.callers = callers
        self._all = links
        self.lost = 0
        self.reason = ""
        self._connect = connect
        self._current: Link | None = None
        self._waiting: deque[float] = deque()
        self._connect_at_s = 0.0
        # The next stream of each connection at moments past: what has a lower number is older.
        self._marks: dict[Link, deque[tuple[float, int]]] = {}

    @property
    def busy(self) -> int:
        """Calls that are begun and not over."""
        return len(self._waiting) + sum(link.connection.in_flight for link in self._marks)

    @property
    def ready(self) -> bool:
        """Whether calls can be made now."""
        return self._current is not None and self._current.connection.ready

    @property
    def free(self) -> int:
        """Callers that could begin a call that is sent at once."""
        if self._current is None or self._waiting:
            return 0
        return min(self.callers - self.busy, self._current.connection.room)

    def begin(self, now_s: float, starts: Iterable[float]) -> None:
        """Begins calls, each counted from its moment."""
        self._waiting.extend(starts)
        self.pump(now_s)

    def begin_many(self, now_s: float, count: int) -> None:
        """Begins calls that are counted from now."""
        link = self._current
        if link is not None and not self._waiting and link.connection.room >= count:
            with suppress(LinkLost):  # Reading it tells so too, and why.
                link.start(repeat(now_s, count))
        else:
            self.begin(now_s, repeat(now_s, count))

    def pump(self, now_s: float) -> None:
        """Sends calls that wait, as many as there is room for."""
        link = self._current
        if link is None or not self._waiting:
            return
        count = min(len(self._waiting), link.connection.room)
        if count > 0:
            with suppress(LinkLost):  # As above.
                link.start([self._waiting.popleft() for _ in range(count)])
        if link.connection.going_away:
            self.retire(link)
            self.repair(now_s)

    def read(self, link: Link, now_s: float) -> list[Ended]:
        """Takes what has come over a connection, and returns the calls that are over."""
        ended: list[Ended] = []
        try:
            ended += link.read()
            link.flush()
        except LinkLost as error:
            ended += self.drop(link, error)
        connection = link.connection
        if connection.going_away:
            self._waiting.extendleft(reversed(connection.unprocessed))
            connection.unprocessed.clear()
            self.retire(link)
            self.repair(now_s)
        if self._waiting:
            self.pump(now_s)
        return ended

    def write(self, link: Link) -> list[Ended]:
        """Goes on sending over a connection whose socket takes bytes again."""
        try:
            link.write()
        except LinkLost as error:
            return self.drop(link, error)
        return []

    def expire(self, now_s: float, timeout_s: float) -> list[Ended]:
        """Gives up calls that were sent longer ago, to the length of a tick."""
        late: list[float] = []
        for link in [*self._marks]:
            marks = self._marks[link]
            while marks and marks[0][0] + timeout_s <= now_s:
                late += link.connection.expire(marks.popleft()[1])
            marks.append((now_s, link.connection.next_stream))
            with suppress(LinkLost):  # As above.
                link.flush()
        status = Status("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s")
        return [Ended(started, status, b"") for started in late]

    def repair(self, now_s: float) -> None:
        """Connects if there is no connection, not too soon after the last attempt."""
        if self._current is None and now_s >= self._connect_at_s:
            self._connect_at_s = now_s + RECONNECT_PAUSE_S
            try:
                link = self._connect()
            except LinkLost as error:
                self.lost += 1
                self.reason = str(error)
                return
            self._current = link
            self._marks[link] = deque()
            self._all[link.fd] = (self, link)

    def retire(self, link: Link) -> None:
        """Begins no more calls over a connection, and closes it once it has none."""
        if link is self._current:
            self._current = None
        if not link.connection.in_flight and link in self._marks:
            self._remove(link)

    def drop(self, link: Link, error: LinkLost) -> list[Ended]:
        """Forgets a connection that is gone; returns calls that were over, or went with it."""
        starts = link.connection.lost()
        if starts or link is self._current:
            self.lost += 1
            self.reason = str(error)
        if link is self._current:
            self._current = None
        self._remove(link)
        status = Status("UNAVAILABLE", str(error))
        return [*error.ended, *(Ended(started, status, b"") for started in starts)]

    def give_up_waiting(self) -> int:
        """Forgets the calls that wait, and returns how many these were."""
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def close(self) -> None:
        """Closes all its connections."""
        for link in [*self._marks]:
            self._remove(link)

    def _remove(self, link: Link) -> None:
        del self._marks[link]
        del self._all[link.fd]
        link.close()
