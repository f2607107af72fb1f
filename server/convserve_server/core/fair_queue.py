"""A bounded queue: interactive jobs before batch ones, and in each class equal shares.

Within a class connections have equal shares (turns.py).

In a queue with keys, what leaves together has the key of the job whose turn is first. The others
keep their turns, so that the first of them decides the next time.

Batch jobs are served when no interactive one waits. Besides, while both wait, batch jobs are owed a
share of what is served, and are served first as soon as they are owed a part.
"""

import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from convserve_server.core.jobs import Job, JobState, Priority
from convserve_server.core.turns import Line, Turns

J = TypeVar("J", bound=Job[Any])

#: What rounding leaves of a sum of costs is less than any part costs.
_NOTHING = 1e-6

#: Weight of one take against all before it, in the share that batch jobs really get.
_WEIGHT = 0.05

_WAITING, _RUNNING, _FINISHED = JobState.WAITING, JobState.RUNNING, JobState.FINISHED
_INTERACTIVE, _BATCH = Priority.INTERACTIVE, Priority.BATCH

#: The key of what leaves while no job has decided it.
_ANY = object()


class FairQueue(Generic[J]):
    """First come, first served among the jobs of one connection and class. Not thread-safe.

    A job that is larger than a limit may still have an empty queue.

    Args:
        max_waiting: parts that may wait.
        max_bytes: of jobs that are not finished.
        max_cost: of the parts that wait, in the unit of Job.cost. Beyond it only those are refused
            that would have more waiting than their share of it.
        batch_share: of what is served, that batch jobs get at least while they wait; 0 to 1.
        keyed: whether jobs have keys; see Job.key.
    """

    def __init__(
        self,
        max_waiting: int,
        max_bytes: float = math.inf,
        max_cost: float = math.inf,
        batch_share: float = 0.1,
        keyed: bool = False,
    ) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._max_cost = max_cost
        self._counts_cost = math.isfinite(max_cost)
        self._batch_share = batch_share
        #: Parts that wait, by their key; None in a queue without keys.
        self._by_key: dict[Hashable, int] | None = {} if keyed else None
        #: What batch jobs are owed for each unit of cost that interactive ones are given.
        self._owed_each = batch_share / (1.0 - batch_share) if batch_share < 1.0 else math.inf
        self._owed = 0.0
        self._last_most = 1
        #: The share that batch jobs got lately while they waited.
        self._batch_got = 1.0
        self._classes: tuple[Turns[J], Turns[J]] = (Turns(), Turns())
        self._interactive, self._batch = self._classes
        #: Parts that wait, and bytes of jobs that are not finished.
        self.waiting = 0
        self.bytes = 0
        #: Cost of the parts that wait, where there is a limit for it.
        self.cost = 0.0

    def __bool__(self) -> bool:
        """Returns whether there is any job, finished or not."""
        return bool(self._interactive.ends or self._batch.ends)

    def __iter__(self) -> Iterator[J]:
        """Yields all jobs, class after class, connection after connection."""
        for one in self._classes:
            for line in one.lines.values():
                yield from line.jobs

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
            if self._costs_too_much(job, cost):
                return (
                    f"images wait that take {self.cost:.1f} s to decode, {cost:.1f} s more exceed "
                    f"the limit of {self._max_cost:.1f} s"
                )
        return ""

    def ahead(
        self, connection: Hashable, priority: Priority, count: float, *, cost: bool = False
    ) -> float:
        """Returns how much of what waits would be served before the last part of a new job.

        An estimate: of what waits, no more than fair shares allow; and where fewer batch jobs were
        served lately than that, as much more.

        Args:
            connection: of the job.
            priority: of the job.
            count: its parts, or what they cost.
            cost: count in cost, of a queue that has a limit for it; else in parts.
        """
        if not self.waiting:
            return 0.0
        own_class = self._classes[priority]
        one_by_one = count > 1 and count * len(own_class.lines) > self._last_most and not cost
        other_class = self._classes[1 - priority]
        line = own_class.lines.get(connection)
        if cost:
            total, other = own_class.cost, other_class.cost
            own = line.cost if line is not None else 0.0
        else:
            total, other = own_class.waiting, other_class.waiting
            own = line.waiting if line is not None else 0
        others = len(own_class.lines) - (line is not None)
        before = own + min(total - own, others * (own + count))
        if one_by_one and own_class.backlogged > 1:
            # Those who have more than their share of a batch will go on to use it.
            before = max(before, own + (own_class.backlogged - 1) * (own + count))
        if priority is _INTERACTIVE:
            return before + min(other, (before + count) * self._owed_each) if other else before
        # As long as there is any interactive job, more of them will come.
        return max(before + other, (before + count) / max(self._batch_got, _NOTHING) - count)

    def append(self, job: J) -> None:
        """Adds the last job of its connection, whether or not it fits."""
        job.state = _WAITING
        count = job.count
        one = self._classes[job.priority]
        line = one.append(job)
        self.waiting += count
        one.waiting += count
        line.waiting += count
        self.bytes += job.size
        if self._by_key is not None:
            self._by_key[job.key] = self._by_key.get(job.key, 0) + count
        if self._counts_cost:
            cost = job.cost(0, count)
            self.cost += cost
            one.cost += cost
            line.cost += cost

    def take(
        self, most: int, now: float, batch_s: Callable[[int], float] | None = None
    ) -> tuple[list[J], list[tuple[J, int]]]:
        """Takes the next parts out of the queue.

        Jobs that cannot be done in time are dropped: those whose deadline would pass before the
        parts that leave now are done, or before all that is left of the job; those that have not
        begun by Job.start_by. If nothing else is left, those leave that can be done with few
        others beside them.

        Args:
            most: parts.
            now: time.monotonic().
            batch_s: seconds that so many parts take together; None where that is not known.

        Returns: the jobs that are dropped, which are FINISHED and have yet to be answered; and
            jobs that give parts, each with the index of the first; the last is the one before
            Job.taken.
        """
        dropped: list[J] = []
        first: dict[J, int] = {}
        if not self.waiting:
            self.clear()
        interactive, batch = self._interactive, self._batch
        self._last_most = most
        left = target = min(most, self.waiting)
        # When what leaves now should be done; found out when the first one has a deadline.
        end = 0.0
        tight: list[tuple[J, Line[J]]] = []
        competing = (len(interactive.lines), len(batch.lines))
        shares = (most // (len(interactive.lines) or 1) or 1, most // (len(batch.lines) or 1) or 1)
        batch_waits = batch.waiting > 0
        batch_taken = 0
        by_key = self._by_key
        key: Hashable = _ANY
        aside: list[tuple[Turns[J], tuple[float, int, Line[J]]]] = []
        while left:
            both = False
            if not batch.ends:
                if not interactive.ends:
                    break
                one = interactive
            elif not interactive.ends:
                one = batch
            else:
                both = True
                job = batch.ends[0][2].jobs[0]
                owed = job.state is _FINISHED or self._owed >= job.cost(job.taken, 1) - _NOTHING
                one = batch if owed else interactive
            turn, _, line = one.ends[0]
            job = line.jobs[0]
            share = shares[one is batch]
            if job.state is _FINISHED:
                one.skip()
                continue
            if by_key is not None and key is not _ANY and job.key != key:
                most_of_job = 1 if both and one is batch else min(left, share)
                if not one.bring(key, most_of_job):
                    aside.append((one, one.set_aside()))
                continue
            rest = job.count - job.taken
            deadline = job.deadline
            if by_key is not None and key is _ANY:
                left = target = min(most, by_key[job.key])
                end = 0.0
            if deadline is not None and not end:
                end = now if batch_s is None else now + batch_s(target)
            if deadline is not None and (
                deadline <= end
                or (
                    rest > share
                    and batch_s is not None
                    and deadline <= now + batch_s(rest * (1 if job.taken else one.backlogged or 1))
                )
            ):
                if deadline > now:
                    key = job.key
                    tight.append((job, line))
                else:
                    self._drop(job, line)
                    dropped.append(job)
                one.skip()
                continue
            if job.start_by <= now and not job.taken:
                self._drop(job, line)
                dropped.append(job)
                one.skip()
                continue
            at = job.taken
            # A job with one part left gives it, which is by far the most frequent case.
            count = 1 if rest == 1 or (both and one is batch) else min(rest, left, share)
            first.setdefault(job, at)
            key = job.key
            left -= count
            self._forget(job, count, one, line)
            job.taken = at + count
            one.clock = turn
            last = turn + job.cost(at + 1, count - 1) if count > 1 else turn
            if one is batch:
                batch_taken += count
                self._owed = max(0.0, self._owed - job.cost(at, count)) if self._owed else 0.0
            elif both:
                self._owed += job.cost(at, count) * self._owed_each
            if count == rest:
                job.state = _RUNNING
                one.next(last)
            else:
                one.again(last + job.cost(job.taken, 1))
        for one, kept in aside:
            one.put_back(kept)
        if not batch.lines:
            self._owed = 0.0
        if batch_waits and first:
            self._batch_got += _WEIGHT * (batch_taken / (target - left) - self._batch_got)
        if tight:
            if not first and batch_s is not None:
                self._take_tight(tight, most, now, batch_s, first)
            for job, line in tight:
                if job not in first:
                    self._drop(job, line)
                    dropped.append(job)
        interactive.backlogged = competing[0] if interactive.waiting else 0
        batch.backlogged = competing[1] if batch_waits and batch.waiting else 0
        return dropped, list(first.items())

    def finish(self, job: J) -> bool:
        """Turns a job to FINISHED, if it is not; its parts that wait are not served.

        Returns: False if it was finished before.
        """
        state = job.state
        if state is _FINISHED:
            return False
        if state is _WAITING:
            self._drop(job, self._classes[job.priority].lines[job.connection])
        else:
            if state is _RUNNING:
                self.bytes -= job.size
            job.state = _FINISHED
        return True

    def _drop(self, job: J, line: Line[J]) -> None:
        """Turns a job that waits to FINISHED."""
        self._forget(job, job.count - job.taken, self._classes[job.priority], line)
        self.bytes -= job.size
        job.state = _FINISHED

    def clear(self) -> None:
        """Forgets all jobs, which must be finished."""
        for one in self._classes:
            one.clear()
        self._owed = 0.0

    def _take_tight(
        self,
        jobs: list[tuple[J, Line[J]]],
        most: int,
        now: float,
        batch_s: Callable[[int], float],
        first: dict[J, int],
    ) -> None:
        """Takes of jobs that can only be done with few others as many as can be done together."""
        count, until = 0, math.inf
        for job, line in jobs:
            assert job.deadline is not None
            rest = job.count - job.taken
            latest = min(until, job.deadline)
            if count + rest > most or now + batch_s(count + rest) >= latest:
                continue
            count, until = count + rest, latest
            first[job] = job.taken
            self._forget(job, rest, self._classes[job.priority], line)
            job.taken = job.count
            job.state = _RUNNING

    def _costs_too_much(self, job: J, cost: float) -> bool:
        """Returns whether more work of a connection would exceed the limit, and its share of it."""
        if self.cost + cost <= self._max_cost:
            return False
        costs: dict[Hashable, float] = {job.connection: cost}
        for one in self._classes:
            for connection, line in one.lines.items():
                if line.waiting:
                    costs[connection] = costs.get(connection, 0.0) + line.cost
        return costs[job.connection] > self._max_cost / len(costs)

    def _forget(self, job: J, count: int, one: Turns[J], line: Line[J]) -> None:
        """Counts parts as waiting no more."""
        self.waiting -= count
        one.waiting -= count
        line.waiting -= count
        if self._by_key is not None:
            self._by_key[job.key] -= count
            if not self._by_key[job.key]:
                del self._by_key[job.key]
        if not self._counts_cost:
            return
        cost = job.cost(job.taken, count)
        # What rounding leaves of a sum is nothing where nothing waits.
        self.cost = self.cost - cost if self.waiting else 0.0
        one.cost = one.cost - cost if one.waiting else 0.0
        line.cost = line.cost - cost if line.waiting else 0.0
