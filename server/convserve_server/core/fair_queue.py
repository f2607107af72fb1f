"""A bounded queue in which connections get equal shares of what is served.

A connection whose next part costs much waits until the others have been given as much: many cheap
parts pass an expensive one, and a new connection has no advantage by being new. Where all parts
cost the same, connections take turns.

Source: Golestani, "A self-clocked fair queueing scheme for broadband applications" (INFOCOM 1994).
"""

import heapq
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

from convserve_server.core.jobs import Job, JobState

J = TypeVar("J", bound=Job[Any])

#: What rounding leaves of a sum of costs is less than any part costs.
_NOTHING = 1e-6

_WAITING, _RUNNING, _FINISHED = JobState.WAITING, JobState.RUNNING, JobState.FINISHED


class FairQueue(Generic[J]):
    """First come, first served among the jobs of one connection. Not thread-safe.

    A job that is larger than a limit may still have an empty queue.

    Args:
        max_waiting: parts that may wait.
        max_bytes: of jobs that are not finished.
        max_cost: of the parts that wait, in the unit of Job.cost. Beyond it only those are refused
            that would have more waiting than their share of it.
    """

    def __init__(
        self, max_waiting: int, max_bytes: float = math.inf, max_cost: float = math.inf
    ) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._max_cost = max_cost
        self._counts_cost = math.isfinite(max_cost)
        self._queues: dict[Hashable, deque[J]] = {}
        #: When the next part of each connection would end if all were served at once, on the clock
        #: of the one in service; a number that breaks ties by arrival; the connection.
        self._ends: list[tuple[float, int, Hashable]] = []
        self._clock = 0.0
        self._numbers = itertools.count()
        #: Parts that wait, and bytes of jobs that are not finished.
        self.waiting = 0
        self.bytes = 0
        #: Cost of the parts that wait: in all, and of each connection that has some.
        self.cost = 0.0
        self._cost_of: defaultdict[Hashable, float] = defaultdict(float)

    def __bool__(self) -> bool:
        """Returns whether there is any job, finished or not."""
        return bool(self._ends)

    def __iter__(self) -> Iterator[J]:
        """Yields all jobs, connection after connection."""
        for queue in self._queues.values():
            yield from queue

    def refusal(self, job: J, ahead: int = 0, max_waiting: int | None = None) -> str:
        """Returns why a job does not fit; empty if it does.

        Args:
            job: in no queue yet.
            ahead: parts that wait elsewhere and count as well.
            max_waiting: where fewer parts may wait than in this queue.
        """
        waiting = self.waiting + ahead
        most = self._max_waiting if max_waiting is None else min(max_waiting, self._max_waiting)
        if waiting and waiting + job.count > most:
            return f"{waiting} images wait, {job.count} more exceed the limit of {most}"
        if self.bytes and self.bytes + job.size > self._max_bytes:
            return (
                f"{self.bytes} bytes wait, {job.size} more exceed the limit of "
                f"{self._max_bytes:.0f}"
            )
        if self._counts_cost and self.waiting:
            cost = job.cost(0, job.count)
            if self._costs_too_much(job.connection, cost):
                return (
                    f"images wait that take {self.cost:.1f} s to decode, {cost:.1f} s more exceed "
                    f"the limit of {self._max_cost:.1f} s"
                )
        return ""

    def append(self, job: J) -> None:
        """Adds the last job of its connection, whether or not it fits."""
        job.state = _WAITING
        self.waiting += job.count
        self.bytes += job.size
        if self._counts_cost:
            cost = job.cost(0, job.count)
            self.cost += cost
            self._cost_of[job.connection] += cost
        queue = self._queues.get(job.connection)
        if queue is None:
            self._queues[job.connection] = deque((job,))
            self._line_up(job.connection, self._clock + job.cost(0, 1))
        else:
            queue.append(job)

    def take(self, most: int, now: float) -> tuple[list[J], list[tuple[J, int]]]:
        """Takes the next parts out of the queue.

        Args:
            most: parts.
            now: time.monotonic().

        Returns: jobs whose deadline has passed, which are FINISHED and have yet to be answered; and
            jobs that give parts, each with the index of the first; the last is the one before
            Job.taken.
        """
        expired: list[J] = []
        first: dict[J, int] = {}
        share = max(1, most // max(1, len(self._queues)))
        while most and self._ends:
            end, _, connection = self._ends[0]
            job = self._queues[connection][0]
            if job.state is _FINISHED:
                self._next(connection, self._clock)
            elif job.deadline is not None and job.deadline <= now:
                self.finish(job)
                expired.append(job)
                self._next(connection, self._clock)
            else:
                at = job.taken
                count = min(job.count - at, most, share)
                first.setdefault(job, at)
                most -= count
                self._forget(job, count)
                job.taken = at + count
                self._clock = end
                last = end + job.cost(at + 1, count - 1) if count > 1 else end
                if job.taken == job.count:
                    job.state = _RUNNING
                    self._next(connection, last)
                else:
                    heapq.heapreplace(
                        self._ends, (last + job.cost(job.taken, 1), next(self._numbers), connection)
                    )
        return expired, list(first.items())

    def finish(self, job: J) -> bool:
        """Turns a job to FINISHED, if it is not; its parts that wait are not served.

        Returns: False if it was finished before.
        """
        state = job.state
        if state is _FINISHED:
            return False
        if state is _WAITING:
            self._forget(job, job.count - job.taken)
        if state is not JobState.NEW:
            self.bytes -= job.size
        job.state = _FINISHED
        return True

    def clear(self) -> None:
        """Forgets all jobs, which must be finished."""
        self._queues.clear()
        self._ends.clear()

    def _costs_too_much(self, connection: Hashable, cost: float) -> bool:
        """Returns whether more work of a connection would exceed the limit, and its share of it."""
        own = self._cost_of.get(connection, 0.0)
        share = self._max_cost / (len(self._cost_of) + (connection not in self._cost_of))
        return self.cost + cost > self._max_cost and own + cost > share

    def _forget(self, job: J, count: int) -> None:
        """Counts parts as waiting no more."""
        self.waiting -= count
        if not self._counts_cost:
            return
        cost = job.cost(job.taken, count)
        self.cost = self.cost - cost if self.waiting else 0.0
        self._cost_of[job.connection] -= cost
        if self._cost_of[job.connection] < _NOTHING:
            del self._cost_of[job.connection]

    def _next(self, connection: Hashable, since: float) -> None:
        """Removes the first job of the connection whose turn it is."""
        queue = self._queues[connection]
        queue.popleft()
        if queue:
            job = queue[0]
            end = since + job.cost(job.taken, 1) if job.taken < job.count else since
            heapq.heapreplace(self._ends, (end, next(self._numbers), connection))
        else:
            heapq.heappop(self._ends)
            del self._queues[connection]

    def _line_up(self, connection: Hashable, end: float) -> None:
        heapq.heappush(self._ends, (end, next(self._numbers), connection))
