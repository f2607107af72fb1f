"""What waits for one engine: who is refused at the door, and what makes the next batch.

A call that cannot be answered within its deadline costs nothing but the refusal: it is refused at
the door if what is served before it, what runs and its own batch take longer than it has; and it is
dropped when the batch is formed, in case that was an error, if the deadline would pass before that
batch is done. So every image that the engine computes is waited for, and under any load the engine
does as much useful work as it can. The times are those of batches of the same size (BatchTimes).

Time is given to every method, and there is no lock and no thread: see Batcher.
"""

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

from convserve_server.core.batch_request import BatchRequest, Slice
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.errors import (
    DeadlinePassed,
    QueueFull,
    ServeError,
)
from convserve_server.core.fair_queue import FairQueue
from convserve_server.core.jobs import Job, JobState, Priority
from convserve_server.core.refusals import USED, Forecast, cannot_meet, coarse_ms, waits_too_long

#: Where the engine has run nothing for so long, s, its times may be wrong: nobody is refused by
#: them until it has run a batch.
_STALE_S = 1.0

#: A batch that waits to be fuller begins so much before it must, s and as part of its time.
_EARLY_S = 0.002
_EARLY = 0.5


class Batch(NamedTuple):
    """Rows that the engine runs together.

    Attributes:
        slices: of the requests.
        images: how many rows.
        started: time.monotonic().
        end: time.monotonic() at which it should be done.
    """

    slices: list[Slice]
    images: int
    started: float
    end: float


_WAITING, _RUNNING, _INTERACTIVE = JobState.WAITING, JobState.RUNNING, Priority.INTERACTIVE

#: How often something had left the queue, and how much waited; time.monotonic(); and when a request
#: would have been served then.
_Asked = tuple[tuple[int, int], float, Forecast]
_NOTHING_ASKED: _Asked = ((-1, 0), 0.0, Forecast(0.0, 0.0, 0.0, 0.0, 0.0))


class BatchQueue:
    """Decides for one engine.

    Args:
        times: of its batches.
        max_batch: maximum batch size, images.
        max_queue: most images waiting; more are refused.
        max_delay_s: maximum batching delay: how long the oldest request waits for a fuller batch.
        max_wait_s: longest time that a request may wait; 0: as long as its deadline allows.
        batch_share: of the engine, for batch calls; see FairQueue.
        parallel: batches that the engine runs at the same time.
        name: of the model, in messages.
        tensors: whether requests hold tensors, whose sizes may differ.
        max_bytes: of requests with tensors that are not finished.
    """

    def __init__(
        self,
        times: BatchTimes,
        *,
        max_batch: int,
        max_queue: int,
        max_delay_s: float = 0.0,
        max_wait_s: float = 0.0,
        batch_share: float = 0.1,
        parallel: int = 1,
        name: str = "",
        tensors: bool = False,
        max_bytes: float = math.inf,
    ) -> None:
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.max_wait_s = max_wait_s
        self._times = times
        #: Seconds of a batch that is full; 0 while not known.
        self._whole_s = times.seconds(max_batch)
        self._max_delay_s = max_delay_s
        self._counts_bytes = math.isfinite(max_bytes)
        self._parallel = parallel
        self._name = name
        self._queue: FairQueue[BatchRequest] = FairQueue(
            max_queue, max_bytes, batch_share=batch_share, keyed=tensors
        )
        #: When the batches that run should be done.
        self._ends: list[float] = []
        #: How often something left the queue; and for the connections of each priority that asked
        #: since: see _Asked.
        self._changes = 0
        self._was_asked = False
        self._asked: tuple[dict[Hashable, _Asked], ...] = tuple({} for _ in Priority)
        #: When the last batch was done, time.monotonic().
        self.last_end = -math.inf

    @property
    def waiting(self) -> int:
        """Images that wait."""
        return self._queue.waiting

    @property
    def running(self) -> int:
        """Batches that run."""
        return len(self._ends)

    def seconds(self, count: int) -> float:
        """Returns what a batch of so many images takes; 0 while that is not known."""
        return self._times.seconds(count)

    def refusal(self, request: BatchRequest, now: float) -> QueueFull | None:
        """Returns why a request cannot be served: no space for it, or no time."""
        queue = self._queue
        waiting = queue.waiting
        # Nothing that waits is never a reason to refuse, and few images nearly never.
        is_full = self._counts_bytes or waiting + request.count > self.max_queue
        if waiting and is_full and (why := queue.refusal(request)):
            return self._full(why)
        deadline = request.deadline
        if not self.max_wait_s:
            if deadline is None:
                return None
            if request.count == 1 and request.priority is _INTERACTIVE:
                # By far the most frequent case: there is time even if all that waits comes before.
                batches = waiting // self.max_batch
                most_s = (2 + batches / USED) * self._whole_s
                if now + most_s < deadline:
                    return None
        return self.time_refusal(request.connection, request.priority, request.count, deadline, now)

    def refusal_of_any(
        self, connection: Hashable, priority: Priority, deadline: float | None, now: float
    ) -> QueueFull | None:
        """Returns why any request would be refused, even of one image; None if it might not be.

        Needs no lock: what waits may have changed a moment later, as before any call. Until a batch
        is formed or a request leaves, nobody is done sooner than when this was asked before.
        """
        queue = self._queue
        if not queue.waiting:
            return None
        if queue.waiting >= self.max_queue:
            return self._full(f"{queue.waiting} images wait, the limit is {self.max_queue}")
        if deadline is None or self.max_wait_s:
            return self.time_refusal(connection, priority, 1, deadline, now)
        changes = self._changes, queue.waiting
        left_s = deadline - now
        known, at, forecast = self._asked[priority].get(connection, _NOTHING_ASKED)
        needed_s = forecast.needed_s(now - at)
        if known != changes and (known[0] != changes[0] or needed_s < left_s):
            if not self._times.known or self._is_stale(now):
                return None
            forecast = self.forecast(connection, priority, 1, now)
            needed_s = forecast.needed_s()
            self._asked[priority][connection] = changes, now, forecast
            self._was_asked = True
        if not 0.0 < left_s <= needed_s:
            return None
        return cannot_meet(self._name, left_s, needed_s, forecast.own_s)

    def time_refusal(
        self,
        connection: Hashable,
        priority: Priority,
        count: int,
        deadline: float | None,
        now: float,
    ) -> QueueFull | None:
        """Returns why a request cannot be served in time; None if it can, or nobody can tell.

        Args:
            connection: by which the call came.
            priority: of the call.
            count: images; with fewer than there are, who is refused would be in any case.
            deadline: of the call, time.monotonic(); None: without.
            now: time.monotonic().
        """
        if not self._times.known:
            return None
        left_s = math.inf if deadline is None else deadline - now
        if left_s <= 0.0 or self._is_stale(now):
            return None
        forecast = self.forecast(connection, priority, count, now)
        if (needed_s := forecast.needed_s()) >= left_s:
            return cannot_meet(self._name, left_s, needed_s, forecast.own_s)
        if self.max_wait_s and forecast.start_s > self.max_wait_s:
            return waits_too_long(f"of {self._name}", forecast.start_s, self.max_wait_s)
        return None

    def forecast(
        self,
        connection: Hashable,
        priority: Priority,
        count: int,
        now: float,
        coming: int = 0,
    ) -> Forecast:
        """Returns when a request would be served; zeros while no times are known.

        Args:
            connection: by which the call came.
            priority: of the call.
            count: images.
            now: time.monotonic().
            coming: images that will be queued before it.
        """
        times, whole = self._times, self.max_batch
        own_s = times.of_images(count, whole)
        ahead = coming + self._queue.ahead(connection, priority, count)
        free_s = 0.0
        if len(self._ends) >= self._parallel:
            free_s = max(0.0, min(self._ends) - now)
        if ahead + count <= whole:
            end_s = free_s + times.seconds(max(1, int(ahead + count)))
            return Forecast(free_s, end_s, own_s, free_s, 0.0)
        # The last batch is as full as the others: more come while it waits.
        whole_s = times.seconds(whole)
        turn_s = whole_s / self._parallel
        last = (ahead + count - 1) // whole
        return Forecast(
            free_s + ahead // whole * turn_s,
            free_s + last * turn_s + whole_s,
            own_s,
            free_s,
            min(ahead, coming + self._queue.waiting) // whole * turn_s,
        )

    def later_refusal(
        self, job: Job[Any], wait_s: float, before_s: float, coming: int, now: float
    ) -> QueueFull | None:
        """Returns why a request cannot be served in time that has to be decoded before.

        Args:
            job: that decodes it.
            wait_s: before it is decoded.
            before_s: that decoding it takes.
            coming: images that will be queued before it.
            now: time.monotonic().
        """
        engine = Forecast(0.0, 0.0, 0.0, 0.0, 0.0)
        if self._times.known and not self._is_stale(now):
            engine = self.forecast(job.connection, job.priority, job.count, now, coming)
        own_s = before_s + engine.own_s
        whole = Forecast(
            max(wait_s, engine.start_s),
            max(wait_s + own_s, engine.end_s),
            own_s,
            engine.running_s,
            max(wait_s - engine.running_s, engine.queued_s),
        )
        if job.deadline is not None and now < job.deadline <= now + whole.needed_s():
            return cannot_meet(self._name, job.deadline - now, whole.needed_s(), own_s)
        if self.max_wait_s and whole.start_s > self.max_wait_s:
            return waits_too_long(f"of {self._name}", whole.start_s, self.max_wait_s)
        return None

    def append(self, request: BatchRequest) -> None:
        """Adds a request, whether or not it fits."""
        if self.max_wait_s and request.start_by == math.inf:
            request.start_by = request.arrived + self.max_wait_s
        self._queue.append(request)

    def take(self, now: float) -> tuple[list[tuple[BatchRequest, ServeError]], Batch | None]:
        """Forms the next batch, which runs from now on.

        Returns: requests that are dropped, with the error that each has to be answered with; and
            the batch, if there is any.
        """
        batch_s = None if self._is_stale(now) else self.needed_s
        self._left()
        dropped, taken = self._queue.take(self.max_batch, now, batch_s)
        errors = [(request, self._dropped(request, now)) for request in dropped]
        if not taken:
            return errors, None
        count = 0
        slices: list[Slice] = []
        for one, at in taken:
            count += one.taken - at
            whole = one.taken - at == one.count
            slices.append((one, at, one.inputs if whole else one.inputs[at : one.taken]))
        return errors, self._started(slices, count, now)

    def run_alone(self, request: BatchRequest, now: float) -> Batch:
        """Returns the batch of a request that does not wait; it runs from now on."""
        request.taken = request.count
        request.state = _RUNNING
        return self._started([(request, 0, request.inputs)], request.count, now)

    def run_again(self, slice_: Slice, now: float) -> Batch:
        """Returns the batch of one slice of a batch that has ended; it runs from now on."""
        return self._started([slice_], len(slice_[2]), now)

    def ended(self, batch: Batch, now: float, *, faulty: bool = False) -> None:
        """Notes that a batch is done.

        Args:
            batch: that ran.
            now: time.monotonic().
            faulty: its time says nothing.
        """
        self._ends.remove(batch.end)
        self.last_end = now
        if not faulty:
            self._times.note(batch.images, now - batch.started)
            self._whole_s = self._times.seconds(self.max_batch)

    def finish(self, request: BatchRequest) -> bool:
        """Turns a request to FINISHED; returns False if it was."""
        if request.state is _WAITING:
            self._left()
        return self._queue.finish(request)

    def window_s(self, now: float) -> float | None:
        """Returns how long the next batch may still wait to be fuller, s; None if none waits."""
        waiting = self._queue.waiting
        if not waiting:
            # Only answered requests are left, if any; forget them.
            self._queue.clear()
            return None
        if not self._max_delay_s or waiting >= self.max_batch:
            return 0.0
        needed_s = self._times.seconds(waiting) * (1.0 + _EARLY) + _EARLY_S
        begin = math.inf
        for job in self._queue:
            if job.state is _WAITING:
                begin = min(begin, job.arrived + self._max_delay_s)
                if job.deadline is not None:
                    begin = min(begin, job.deadline - needed_s)
        return max(0.0, begin - now)

    def _left(self) -> None:
        """Notes that what waits is getting less."""
        self._changes += 1
        if self._was_asked:
            self._was_asked = False
            for asked in self._asked:
                asked.clear()

    def _started(self, slices: list[Slice], count: int, now: float) -> Batch:
        batch = Batch(slices, count, now, now + self._times.seconds(count))
        self._ends.append(batch.end)
        return batch

    def needed_s(self, count: int) -> float:
        """Returns what so many images take on an idle engine; 0 while that is not known."""
        return self._times.of_images(count, self.max_batch) if self._times.known else 0.0

    def _is_stale(self, now: float) -> bool:
        """Returns whether the times have not been compared with a batch for long."""
        return not self._ends and now - self.last_end >= _STALE_S

    def _full(self, why: str) -> QueueFull:
        wait_s = self._times.of_images(self._queue.waiting, self.max_batch)
        return QueueFull(
            f"the queue of {self._name} is full: {why}", max(10, coarse_ms(wait_s)) / 1000
        )

    def _dropped(self, request: BatchRequest, now: float) -> ServeError:
        if request.deadline is not None and request.deadline <= now:
            return DeadlinePassed("the deadline passed in the queue")
        if request.start_by <= now and not request.taken:
            waited_s = max(now - request.arrived, self.max_wait_s)
            return waits_too_long(f"of {self._name}", waited_s, self.max_wait_s)
        return DeadlinePassed("the deadline would have passed before the answer")
