"""Connections get equal shares of what is served.

A connection whose next part costs much waits until the others have been given as much: many cheap
parts pass an expensive one, and a new connection has no advantage by being new. Where all parts
cost the same, connections take turns.

Source: Golestani, "A self-clocked fair queueing scheme for broadband applications" (INFOCOM 1994).
"""

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from convserve_server.core.jobs import Job

J = TypeVar("J", bound=Job[Any])


class Line(Generic[J]):
    """The jobs of one connection in one class.

    Attributes:
        waiting: parts that wait.
        cost: of them, where costs are counted.
    """

    __slots__ = ("connection", "cost", "jobs", "waiting")

    def __init__(self, connection: Hashable, job: J) -> None:
        self.connection = connection
        self.jobs: deque[J] = deque((job,))
        self.waiting = 0
        self.cost = 0.0


class Turns(Generic[J]):
    """The jobs of one priority, connection by connection. Not thread-safe.

    Attributes:
        lines: of the connections that have jobs, finished or not.
        ends: when the next part of each connection would end if all were served at once, on the
            clock of the one in service; a number that breaks ties by arrival; the line.
        waiting: parts that wait.
        cost: of them, where costs are counted.
        backlogged: lines that shared the last take, if parts were left over; else 0.
    """

    __slots__ = ("_numbers", "backlogged", "clock", "cost", "ends", "lines", "waiting")

    def __init__(self) -> None:
        self.backlogged = 0
        self.lines: dict[Hashable, Line[J]] = {}
        self.ends: list[tuple[float, int, Line[J]]] = []
        self.clock = 0.0
        self.waiting = 0
        self.cost = 0.0
        self._numbers = itertools.count()

    def append(self, job: J) -> Line[J]:
        """Adds the last job of its connection; returns its line."""
        line = self.lines.get(job.connection)
        if line is None:
            line = self.lines[job.connection] = Line(job.connection, job)
            end = self.clock + job.cost(0, 1)
            heapq.heappush(self.ends, (end, next(self._numbers), line))
        else:
            line.jobs.append(job)
        return line

    def again(self, end: float) -> None:
        """Lets the connection whose turn it is wait for its next one.

        Args:
            end: of its next part, on the clock.
        """
        heapq.heapreplace(self.ends, (end, next(self._numbers), self.ends[0][2]))

    def bring(self, key: Hashable, most: int) -> bool:
        """Lets the next job with a key pass the others of the connection whose turn it is.

        Only one that can be served as a whole: after it the first job is the first one again, and
        so waits for its turn, not for all jobs that may pass it.

        Args:
            key: of the job; see Job.key.
            most: parts that can be served.

        Returns: whether there is such a job.
        """
        jobs = self.ends[0][2].jobs
        for index, job in enumerate(jobs):
            if job.key == key and job.count - job.taken <= most:
                del jobs[index]
                jobs.appendleft(job)
                return True
        return False

    def set_aside(self) -> tuple[float, int, Line[J]]:
        """Removes the connection whose turn it is until put_back(); returns its turn."""
        return heapq.heappop(self.ends)

    def put_back(self, turn: tuple[float, int, Line[J]]) -> None:
        """Lets a connection that was set aside have its turn again."""
        heapq.heappush(self.ends, turn)

    def next(self, since: float) -> None:
        """Removes the job whose turn it is, which is served.

        Args:
            since: when it ends, on the clock.
        """
        line = self.ends[0][2]
        line.jobs.popleft()
        if line.jobs:
            job = line.jobs[0]
            self.again(since + job.cost(job.taken, 1) if job.taken < job.count else since)
        else:
            self._remove()

    def skip(self) -> None:
        """Removes the job whose turn it is, which is not served; the next one has its turn."""
        turn, number, line = self.ends[0]
        gone = line.jobs.popleft()
        if line.jobs:
            job = line.jobs[0]
            end = turn - gone.cost(gone.taken, 1) + job.cost(job.taken, 1)
            heapq.heapreplace(self.ends, (end, number, line))
        else:
            self._remove()

    def clear(self) -> None:
        """Forgets all jobs, which must be finished."""
        self.lines.clear()
        self.ends.clear()
        self.backlogged = 0

    def _remove(self) -> None:
        """Removes the connection whose turn it is, which has no more jobs."""
        _, _, line = heapq.heappop(self.ends)
        del self.lines[line.connection]
