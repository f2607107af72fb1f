"""One queue for each model version, whose threads run what waits as soon as the engine is free.

A busy engine makes the batches grow by itself, so no request waits for others unless max_delay says
so. Where more waits than a batch holds, each connection has an equal share of it, and what one
leaves of its share goes to the others. Every request that was accepted is answered exactly once:
with its rows, or an error.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from convserve_server.core.errors import (
    Cancelled,
    DeadlinePassed,
    InternalFault,
    NotReady,
    QueueFull,
    ServeError,
)
from convserve_server.core.fair_queue import FairQueue
from convserve_server.core.jobs import Job, JobState
from convserve_server.engines.base import Pixels, Probabilities
from convserve_server.telemetry.observer import NO_OBSERVER, Observer

_NO_PIXELS: Pixels = np.empty((0, 1, 1, 1), np.uint8)

#: Longest work that is done on the thread that submits it, s.
_MAX_INLINE_S = 0.0005


class Answer(NamedTuple):
    """What the engine made of a request."""

    #: float32 [n, K], one row an image.
    probabilities: Probabilities
    #: Seconds from arrival to the start of the last batch that the request was in.
    queue_s: float
    #: Seconds in the engine, over all batches that the request was in.
    compute_s: float
    #: Whether some of the probabilities are not finite.
    damaged: bool = False


#: What becomes of a request.
Outcome = Answer | ServeError


class BatchRequest(Job[Answer]):
    """Images of one call on their way through the batcher.

    Args:
        pixels: uint8 [n, H, W, C], n at least 1.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, on the batcher's thread or the one that cancels; must
            not block.
        connection: by which the call came; connections share batches equally.
    """

    __slots__ = ("compute_s", "damaged", "pixels", "returned", "slices")

    def __init__(
        self,
        pixels: Pixels,
        deadline: float | None,
        done: Callable[[Outcome], None],
        connection: Hashable = "",
    ) -> None:
        super().__init__(len(pixels), 0, deadline, done, connection)
        self.pixels = pixels
        self.compute_s = 0.0
        #: Whether a row that has come back is not finite.
        self.damaged = False
        #: Images whose rows have come back.
        self.returned = 0
        #: Rows of a request that was in several batches, by its first image in each.
        self.slices: dict[int, Probabilities] = {}


#: Images of a request in a batch: the index of the first in the request; uint8 [n, H, W, C].
Slice = tuple[BatchRequest, int, Pixels]


class Unloading(NotReady):
    """This version of the model is being unloaded; the repository has its successor, if any."""


class Batcher:
    """Feeds one engine.

    Args:
        run: runs a batch given in slices uint8 [n, H, W, C]; returns float32 [sum of n, K].
        max_batch: maximum batch size, images.
        max_queue: most images waiting; more are refused.
        max_delay_s: maximum batching delay: how long the oldest request waits for a fuller batch.
        name: of the threads, and in messages.
        parallel: batches that the engine runs at the same time.
        observer: of requests and batches.
        model: as "NAME/VERSION", for the observer.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Pixels]], Probabilities],
        *,
        max_batch: int,
        max_queue: int,
        max_delay_s: float = 0.0,
        name: str = "batcher",
        parallel: int = 1,
        observer: Observer = NO_OBSERVER,
        model: str = "",
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_delay_s = max_delay_s
        self._name = name
        self._observer = observer
        self._model = model
        self._queue: FairQueue[BatchRequest] = FairQueue(max_queue)
        self._closed = False
        # Batches that our threads run, and whether a thread that submits runs one.
        self._runs = 0
        self._running_inline = False
        self._changed = threading.Condition(threading.Lock())
        # Smoothed seconds an image; 0 until the first batch has run.
        self._image_s = 0.0
        self._threads = [
            threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(parallel)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def max_batch(self) -> int:
        """Maximum batch size, images."""
        return self._max_batch

    @property
    def max_queue(self) -> int:
        """Most images waiting."""
        return self._max_queue

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
            QueueFull: if its images do not fit into the queue.
            Unloading: after close().
        """
        queue = self._queue
        with self._changed:
            if self._closed:
                raise Unloading(f"{self._name} is being unloaded")
            # Nothing that waits is the most frequent case, and never a reason to refuse.
            refusal = queue.refusal(request) if queue.waiting and not admitted else ""
            if refusal:
                raise QueueFull(
                    f"the queue of {self._name} is full: {refusal}",
                    retry_after_s=max(0.01, queue.waiting * self._image_s),
                )
            inline = (
                idle_caller
                and self._is_free(request.count)
                and not request.expired(time.monotonic())
            )
            if inline:
                self._running_inline = True
                request.taken = request.count
                request.state = JobState.RUNNING
            else:
                queue.append(request)
                self._changed.notify()
        self._observer.queued(self._model, request.count)
        if inline:
            self._execute([(request, 0, request.pixels)])
            with self._changed:
                self._running_inline = False
                self._changed.notify()

    def cancel(self, request: BatchRequest, reason: ServeError | None = None) -> None:
        """Answers a request with Cancelled (or reason) unless it is answered."""
        with self._changed:
            if not self._queue.finish(request):
                return
            # The queue meets it later; its pixels need not stay until then.
            request.pixels = _NO_PIXELS
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
        return not any(thread.is_alive() for thread in self._threads)

    def _loop(self) -> None:
        ended = 0  # runs of this thread that are over and still counted
        queue = self._queue
        while True:
            with self._changed:
                self._runs -= ended
                while self._running_inline or not (self._closed or self._is_ready()):
                    wait_s = None if self._running_inline else self._batch_window_left_s()
                    self._changed.wait(wait_s)
                expired, taken = queue.take(self._max_batch, time.monotonic())
                if self._closed and not taken and not expired and not queue:
                    return
                batch = [(one, at, one.pixels[at : one.taken]) for one, at in taken]
                self._runs += 1
                ended = 1
                if queue.waiting:
                    self._changed.notify()
            for request in expired:
                self._observer.expired("batch", request.count)
                request.finish(DeadlinePassed("the deadline passed in the queue"))
            if batch:
                self._execute(batch)

    def _is_free(self, count: int) -> bool:
        """Returns whether so many images could run at once, and quickly. Called with the lock."""
        busy = self._running_inline or self._runs or self._queue.waiting or self._max_delay_s
        return (
            not busy and count <= self._max_batch and 0.0 < count * self._image_s <= _MAX_INLINE_S
        )

    def _is_ready(self) -> bool:
        """Returns whether a batch should run now. Called with the lock."""
        if not self._queue.waiting:
            # Only answered requests are left, if any; forget them.
            self._queue.clear()
            return False
        if not self._max_delay_s or self._queue.waiting >= self._max_batch:
            return True
        return (self._batch_window_left_s() or 0.0) <= 0.0

    def _batch_window_left_s(self) -> float | None:
        """Returns how long the oldest request may still wait, s; None if none waits.

        Called with the lock.
        """
        if not self._queue.waiting:
            return None
        oldest = min(job.arrived for job in self._queue if job.state is JobState.WAITING)
        return oldest + self._max_delay_s - time.monotonic()

    def _execute(self, batch: list[Slice]) -> None:
        """Runs a batch and answers the requests that are complete with it."""
        started = time.monotonic()
        count = sum(len(pixels) for _, _, pixels in batch)
        try:
            rows = self._run([pixels for _, _, pixels in batch])
            if len(rows) != count:
                raise RuntimeError(f"the engine gave {len(rows)} rows for {count} images")
            damaged = _is_damaged(rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is these callers' answer
            fault = InternalFault(self._name, error)
            for request, _, _ in batch:
                self.cancel(request, fault)
            return
        compute_s = time.monotonic() - started
        self._image_s += 0.1 * (compute_s / count - self._image_s)
        self._observer.batch(self._model, count, compute_s)
        first = 0
        for request, at, pixels in batch:
            own = rows[first : first + len(pixels)]
            first += len(pixels)
            # Of those who share the batch only who has such rows himself.
            if damaged and _is_damaged(own):
                request.damaged = True
            if len(pixels) == request.count:
                request.compute_s = compute_s
                self._complete(request, own, started)
            else:
                self._put_together(request, at, own, started, compute_s)

    def _put_together(
        self, request: BatchRequest, at: int, rows: Probabilities, started: float, compute_s: float
    ) -> None:
        """Adds rows of a request that was cut; batches may end in another order than they began."""
        with self._changed:
            request.slices[at] = rows
            request.returned += len(rows)
            request.compute_s += compute_s
            if request.returned < request.count:
                return
        try:
            whole = np.concatenate([request.slices[at] for at in sorted(request.slices)])
        except Exception as error:  # noqa: BLE001 - it is this caller's answer, the others go on
            self.cancel(request, InternalFault(self._name, error))
            return
        self._complete(request, whole, started)

    def _complete(self, request: BatchRequest, rows: Probabilities, started: float) -> None:
        with self._changed:
            if not self._queue.finish(request):
                return
        queue_s = started - request.arrived
        request.finish(Answer(rows, queue_s, request.compute_s, request.damaged))


def _is_damaged(rows: Probabilities) -> bool:
    """Returns whether some of the rows, float32 [N, K], are not finite.

    The sum of squares is finite if all are, at a fraction of the cost of looking at each: a
    probability is at most 1. vdot does not warn where it is not.
    """
    return not math.isfinite(np.vdot(rows, rows)) and not bool(np.isfinite(rows).all())
