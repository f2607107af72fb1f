"""One queue for each model version, whose threads run what waits as soon as the engine is free.

A busy engine makes the batches grow by itself, so no request waits for others unless max_delay says
so. Where more waits than a batch holds, each connection has an equal share of it, and what one
leaves of its share goes to the others. Every request that was accepted is answered exactly once:
with its rows, or an error. Who is refused, and what makes a batch, is in batch_queue.py.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from convserve_server.core.batch_queue import Batch, BatchQueue
from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.errors import (
    Cancelled,
    InternalFault,
    InvalidRequest,
    NotReady,
    QueueFull,
    ServeError,
    fitting,
)
from convserve_server.core.image_watch import ImageWatch
from convserve_server.core.jobs import Job, JobState, Priority
from convserve_server.core.outbox import Outbox
from convserve_server.core.wake_ups import held
from convserve_server.engines.base import InputsRefused, Outputs, Pixels, Probabilities
from convserve_server.engines.tensors import Tensors
from convserve_server.host.spare_cpus import SpareCpus
from convserve_server.telemetry.call_notes import CallNotes, note_batch
from convserve_server.telemetry.observer import NO_OBSERVER, Observer

_NO_PIXELS: Pixels = np.empty((0, 1, 1, 1), np.uint8)

#: Shortest work for which a thread on another CPU is woken, s.
_WORTH_S = 0.0005

#: Longest work that is done on the thread that submits it, s.
_MAX_INLINE_S = 0.0005


class Unloading(NotReady):
    """This version of the model is being unloaded; the repository has its successor, if any."""


class Batcher:
    """Feeds one engine.

    Args:
        run: runs a batch given in slices, and returns as many rows; see Engine.run and
            TensorEngine.run.
        max_batch: maximum batch size, rows.
        max_queue: most rows waiting; more are refused.
        max_delay_s: maximum batching delay: how long the oldest request waits for a fuller batch.
        max_wait_s: longest time that a request may wait; 0: as long as its deadline allows.
        batch_share: of the engine, for batch calls; see FairQueue.
        times: of batches by their size; None: nothing was measured.
        name: of the threads, and in messages.
        parallel: batches that the engine runs at the same time.
        observer: of requests and batches.
        model: as "NAME/VERSION", for the observer.
        spare: CPUs on which batches run while the engine is busy; None: on none.
        tensors: whether requests hold tensors, of a model that is not a bundle.
        max_bytes: of requests with tensors that are not finished; more are refused.
        watch: looks at some images of a bundle; None: nobody does.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Any]], Outputs],
        *,
        max_batch: int,
        max_queue: int,
        max_delay_s: float = 0.0,
        max_wait_s: float = 0.0,
        batch_share: float = 0.1,
        times: BatchTimes | None = None,
        name: str = "batcher",
        parallel: int = 1,
        spare: SpareCpus | None = None,
        observer: Observer = NO_OBSERVER,
        model: str = "",
        tensors: bool = False,
        max_bytes: float = math.inf,
        watch: ImageWatch | None = None,
    ) -> None:
        self._run = run
        self._watch = watch
        self._name = name
        self._observer = observer
        #: As "NAME/VERSION".
        self.model = model
        # Calls that were refused before they were queued, and how many of them the observer has
        # heard of. Any thread refuses; next() of a count is atomic and costs less than a lock.
        self._refused = itertools.count()
        self._reported = 0
        self._report_due = False
        self._delays = max_delay_s > 0.0
        self._queue = BatchQueue(
            times if times is not None else BatchTimes({}),
            max_batch=max_batch,
            max_queue=max_queue,
            max_delay_s=max_delay_s,
            max_wait_s=max_wait_s,
            batch_share=batch_share,
            parallel=parallel,
            name=name,
            tensors=tensors,
            max_bytes=max_bytes,
        )
        self._tensors = tensors
        # Who asks for a delay wants full batches.
        self._spare = None if self._delays else spare
        # Batches on spare CPUs; images that are worth one; and whether there was none when it was
        # last looked for: once for each batch is enough.
        self._helping = 0
        self._worth = math.inf
        self._looked = False
        self._closed = False
        # Whether a thread that submits runs a batch.
        self._running_inline = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Whether a thread was notified of what waits and has not looked since: once is enough,
        # however many calls come meanwhile.
        self._notified = False
        self._threads = [
            threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(parallel)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def max_batch(self) -> int:
        """Maximum batch size, images."""
        return self._queue.max_batch

    @property
    def max_queue(self) -> int:
        """Most images waiting."""
        return self._queue.max_queue

    @property
    def max_wait_s(self) -> float:
        """Longest time that a request may wait, s; 0: as long as its deadline allows."""
        return self._queue.max_wait_s

    def was_used(self, since: float) -> bool:
        """Returns whether there was work at time.monotonic() since, or later."""
        queue = self._queue
        return bool(queue.waiting or queue.running) or queue.last_end >= since

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.waiting

    def submit(
        self, request: BatchRequest, *, idle_caller: bool = False, admitted: bool = False
    ) -> None:
        """Queues a request; its done is called later unless this raises.

        Args:
            request: to be answered.
            idle_caller: the calling thread has nothing else to do. If the engine is free and the
                work short, it is done on that thread, here and now: handing it to the batcher's
                thread and the answer back would take about as long.
            admitted: a bound was kept before; the queue accepts it even if it is full.

        Raises:
            CannotMeetDeadline: if it cannot be answered within its deadline.
            QueueFull: if its images do not fit into the queue, or would wait too long.
            Unloading: after close().
        """
        queue = self._queue
        inline: Batch | None = None
        help_due = False
        with self._lock:
            if self._closed:
                raise Unloading(f"{self._name} is being unloaded")
            if not admitted:
                refusal = queue.refusal(request, request.arrived)
                if refusal is not None:
                    raise refusal
            if (
                idle_caller
                and self._is_free(request.count)
                and not request.expired(time.monotonic())
            ):
                self._running_inline = True
                inline = queue.run_alone(request, time.monotonic())
            else:
                queue.append(request)
                if not self._notified:
                    self._notified = True
                    if not held(self._wake):
                        self._changed.notify()
                help_due = queue.waiting >= self._worth and self._is_help_due()
        if help_due:
            self._look_for_help()
        self._observer.queued(self.model, request.count)
        if inline is not None:
            self._execute(inline)
            with self._changed:
                self._running_inline = False
                if self._closed:
                    self._changed.notify_all()
                elif queue.waiting:
                    # Else a thread would wake for nothing at each call of an only caller.
                    self._changed.notify()

    def refusal_of_any(
        self, connection: Hashable, priority: Priority, deadline: float | None, now: float
    ) -> QueueFull | None:
        """See BatchQueue.refusal_of_any."""
        return self._queue.refusal_of_any(connection, priority, deadline, now)

    def note_refusal(self) -> None:
        """Counts a call that was refused by refusal_of_any; observers hear of it with a batch."""
        next(self._refused)
        self._report_due = True

    def later_refusal(
        self, job: Job[Any], wait_s: float, before_s: float, coming: int
    ) -> QueueFull | None:
        """See BatchQueue.later_refusal."""
        with self._changed:
            return self._queue.later_refusal(job, wait_s, before_s, coming, job.arrived)

    def seconds(self, count: int) -> float:
        """Returns what so many images take on an idle engine; 0 while that is not known."""
        with self._changed:
            return self._queue.needed_s(count)

    def work_s(self, count: int) -> float:
        """Returns what so many images take with all that the engine runs at the same time, s."""
        return self.seconds(count) / len(self._threads)

    def cancel(self, request: BatchRequest, reason: ServeError | None = None) -> None:
        """Answers a request with Cancelled (or reason) unless it is answered."""
        with self._changed:
            if not self._queue.finish(request):
                return
            # The queue meets it later; its inputs need not stay until then.
            request.inputs = _NO_PIXELS
        if reason is not None:
            self._observe_failure(request, reason)
        request.finish(reason or Cancelled("cancelled by the caller"))

    def close(self) -> None:
        """Accepts no more requests; those accepted are still answered, then the threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until the threads have ended after close(); returns False if they have not."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        with self._changed:
            left_s = None if end is None else max(0.0, end - time.monotonic())
            helped = self._changed.wait_for(lambda: not self._helping, left_s)
        return helped and not any(thread.is_alive() for thread in self._threads)

    def _loop(self) -> None:
        queue = self._queue
        while True:
            with self._changed:
                while True:
                    self._notified = False
                    if not self._running_inline:
                        now = time.monotonic()
                        window_s = queue.window_s(now)
                        if window_s == 0.0 or self._closed:
                            break
                    else:
                        window_s = None
                    self._changed.wait(window_s)
                if window_s is None:
                    return
                dropped, batch = queue.take(now)
                if queue.waiting:
                    self._changed.notify()
                self._looked = False
                self._worth = self._worth_help()
                help_due = queue.waiting >= self._worth and self._is_help_due()
            if help_due:
                self._look_for_help()
            self._drop(dropped)
            if batch is not None:
                self._execute(batch)

    def _wake(self) -> None:
        with self._lock:
            self._changed.notify()

    def _drop(self, dropped: list[tuple[BatchRequest, ServeError]]) -> None:
        """Answers requests that are not computed."""
        for request, error in dropped:
            self._observer.expired("batch", request.count)
            self._observe_failure(request, error)
            request.finish(error)

    def _worth_help(self) -> float:
        """Returns for how many images another CPU is worth waking. Called with the lock."""
        if self._spare is None:
            return math.inf
        queue = self._queue
        whole_s = queue.seconds(queue.max_batch)
        return max(1.0, queue.max_batch * _WORTH_S / whole_s) if whole_s else math.inf

    def _is_help_due(self) -> bool:
        """Returns whether images that wait should be run elsewhere. Called with the lock."""
        queue = self._queue
        # A thread of ours that is free takes them at once.
        busy = queue.running - self._helping >= len(self._threads)
        return busy and not self._looked

    def _look_for_help(self) -> None:
        """Has a batch run on a spare CPU, if there is one."""
        assert self._spare is not None
        if not self._spare.run(self._help):
            self._looked = True

    def _help(self) -> bool:
        """Runs a batch if one waits, on a spare CPU; returns whether another does."""
        queue = self._queue
        with self._changed:
            now = time.monotonic()
            if queue.waiting < self._worth or not self._is_help_due():
                return False
            dropped, batch = queue.take(now)
            self._helping += 1
        try:
            self._drop(dropped)
            if batch is not None:
                self._execute(batch)
        finally:
            with self._changed:
                self._helping -= 1
                if self._closed:
                    self._changed.notify_all()
                more = queue.waiting >= self._worth and self._is_help_due()
        return more

    def _is_free(self, count: int) -> bool:
        """Returns whether so many images could run at once, and quickly. Called with the lock."""
        queue = self._queue
        busy = self._running_inline or queue.running or queue.waiting or self._delays
        return not busy and count <= queue.max_batch and 0.0 < queue.seconds(count) <= _MAX_INLINE_S

    def _execute(self, batch: Batch) -> None:
        """Runs a batch and answers the requests that are complete with it."""
        slices, count, started, _ = batch
        notes: list[CallNotes] = []
        try:
            rows = self._run([inputs for _, _, inputs in slices])
            if len(rows) != count:
                raise RuntimeError(f"the engine gave {len(rows)} rows for {count}")
            damaged = not isinstance(rows, Tensors) and _is_damaged(rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is these callers' answer
            notes = [one.notes for one, _, _ in slices if one.notes is not None]
            noted = note_batch(self.model, count, started, time.monotonic(), notes, failed=True)
            self._fail(batch, error)
            if noted is not None:
                noted.end()
            return
        now = time.monotonic()
        compute_s = now - started
        queue = self._queue
        complete: list[bool] = []
        arrived: list[float] = []
        began = 0.0
        with self._lock:
            queue.ended(batch, now)
            for request, _, inputs in slices:
                # Those that were cut are not complete by their rows in this batch alone.
                whole = request.count == len(inputs) and queue.finish(request)
                complete.append(whole)
                if request.notes is not None:
                    notes.append(request.notes)
                if whole:
                    arrived.append(request.arrived)
                    began += request.began
        self._observer.batch(self.model, count, compute_s, arrived, len(arrived) * now - began, now)
        if self._report_due:
            self._report_refusals()
        noted = note_batch(self.model, count, started, now, notes) if notes else None
        outbox = Outbox() if len(slices) > 1 else None
        first = 0
        for (request, at, inputs), whole in zip(slices, complete, strict=True):
            end = first + len(inputs)
            own = rows[first:end]
            first = end
            # Of those who share the batch only who has such rows himself.
            if damaged and not isinstance(own, Tensors) and _is_damaged(own):
                request.damaged = True
            if whole:
                queue_s = started - request.arrived
                request.finish(Answer(own, queue_s, compute_s, request.damaged, outbox))
            elif request.count > len(inputs):
                self._put_together(request, at, own, started, compute_s)
        if outbox is not None:
            outbox.send()
        if noted is not None:
            noted.end()
        watch = self._watch
        if watch is not None and now >= watch.due and not isinstance(rows, Tensors):
            watch.look([inputs for _, _, inputs in slices], rows)

    def _fail(self, batch: Batch, error: Exception) -> None:
        """Answers the requests of a batch that failed.

        Values of one caller may be what the model cannot compute: of tensors that share a batch,
        those of each request are run again, by themselves.
        """
        again = self._tensors and len(batch.slices) > 1
        for slice_ in batch.slices if again else ():
            with self._changed:
                if slice_[0].state is JobState.FINISHED:
                    continue
                one = self._queue.run_again(slice_, time.monotonic())
            self._execute(one)
        # Not before: nobody should find the engine free between two of them.
        with self._changed:
            self._queue.ended(batch, time.monotonic(), faulty=True)
        if again:
            return
        reason: ServeError
        if isinstance(error, InputsRefused):
            problem = f"expected values that the model can compute, got {error}"
            reason = InvalidRequest("inputs", fitting(problem))
        else:
            reason = InternalFault(self._name, error)
        for request, _, _ in batch.slices:
            self.cancel(request, reason)

    def _put_together(
        self, request: BatchRequest, at: int, rows: Outputs, started: float, compute_s: float
    ) -> None:
        """Adds rows of a request that was cut; batches may end in another order than they began."""
        with self._changed:
            request.slices[at] = rows
            request.returned += len(rows)
            request.compute_s += compute_s
            if request.returned < request.count:
                return
        try:
            whole = _joined([request.slices[at] for at in sorted(request.slices)])
        except Exception as error:  # noqa: BLE001 - it is this caller's answer, the others go on
            self.cancel(request, InternalFault(self._name, error))
            return
        with self._changed:
            if not self._queue.finish(request):
                return
        queue_s = started - request.arrived
        whole_s = time.monotonic() - request.began
        self._observer.joined(self.model, queue_s, request.compute_s, whole_s)
        request.finish(Answer(whole, queue_s, request.compute_s, request.damaged))

    def _observe_failure(self, request: BatchRequest, error: ServeError) -> None:
        self._observer.failed(self.model, error.reason, time.monotonic() - request.began)

    def _report_refusals(self) -> None:
        """Lets the observer hear of the calls that were refused since the last time."""
        with self._changed:
            self._report_due = False
            refused = next(self._refused) - self._reported
            # This was one number more.
            self._reported += refused + 1
        self._observer.turned_away(self.model, refused)


def _joined(parts: Sequence[Any]) -> Outputs:
    """Returns what came back of a request, in one piece."""
    if isinstance(parts[0], Tensors):
        return Tensors.joined(parts)
    whole: Probabilities = np.concatenate(parts)
    return whole


def _is_damaged(rows: Probabilities) -> bool:
    """Returns whether some of the rows, float32 [N, K], are not finite.

    The sum of squares is finite if all are, at a fraction of the cost of looking at each: a
    probability is at most 1. vdot does not warn where it is not.
    """
    return not math.isfinite(np.vdot(rows, rows)) and not bool(np.isfinite(rows).all())
