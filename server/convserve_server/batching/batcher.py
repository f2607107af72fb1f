"""One queue for each model version, whose threads run what waits as soon as the engine is free.

A busy engine makes the batches grow by itself, so no request waits for company unless max_delay
says so. Where more waits than a batch holds, each caller has an equal share of it, and who leaves
some of his leaves it to the others. Every request that was accepted is answered exactly once: with
its rows, or an error.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from convserve_server.batching.request import Answer, Piece, Pixels, Probabilities, Request
from convserve_server.batching.turns import Turns
from convserve_server.errors import (
    Cancelled,
    DeadlinePassed,
    InternalFault,
    NotReady,
    QueueFull,
    ServeError,
)

_NO_PIXELS: Pixels = np.empty((0, 1, 1, 1), np.uint8)

#: Longest work that is done on the thread that submits it, s.
_HERE_S = 0.0005


class Batcher:
    """Feeds one engine.

    Args:
        run: runs a batch given in pieces uint8 [n, H, W, C]; returns float32 [sum of n, K].
        max_batch: most images in one run.
        max_queue: most images waiting; more are refused.
        max_delay_s: longest that the oldest request waits for a fuller batch.
        name: of the threads, and in messages.
        parallel: batches that the engine takes at the same time.
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
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_delay_s = max_delay_s
        self._name = name
        self._queue: Turns[Request] = Turns()
        self._waiting = 0
        self._closed = False
        # Batches that our threads run, and whether a thread that submits runs one.
        self._runs = 0
        self._here = False
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
        """Most images in one run."""
        return self._max_batch

    @property
    def max_queue(self) -> int:
        """Most images waiting."""
        return self._max_queue

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._waiting

    def submit(self, request: Request, *, alone: bool = False, admitted: bool = False) -> None:
        """Queue a request; its done is called later unless this raises.

        Args:
            request: to be answered.
            alone: the caller's thread has nothing else to do. If the engine is free and the work
                short, it is done on that thread, here and now: handing it to the batcher's thread
                and the answer back would take about as long.
            admitted: a bound was kept before; the queue takes it even if it is full.

        Raises:
            QueueFull: if its images do not fit into the queue.
            NotReady: after close().
        """
        count = request.count
        with self._changed:
            if self._closed:
                raise NotReady(f"{self._name} is being unloaded")
            # A request that is larger than the whole queue may still have an empty one.
            full = self._waiting and self._waiting + count > self._max_queue
            if full and not admitted:
                raise QueueFull(
                    f"the queue of {self._name} is full: {self._waiting} images wait, "
                    f"{count} more exceed the limit of {self._max_queue}",
                    retry_after_s=max(0.01, self._waiting * self._image_s),
                )
            here = alone and self._free(count) and not request.expired(time.monotonic())
            if here:
                self._here = True
                request.taken = count
            else:
                self._queue.append(request.caller, request)
                self._waiting += count
                self._changed.notify()
        if here:
            self._execute([(request, 0, request.pixels)])
            with self._changed:
                self._here = False
                self._changed.notify()

    def cancel(self, request: Request, reason: ServeError | None = None) -> None:
        """Answer a request with Cancelled (or reason) unless it is answered; frees its place."""
        with self._changed:
            if request.finished:
                return
            request.finished = True
            self._waiting -= request.count - request.taken
            # Its place in the queue is found empty later; its pixels need not stay until then.
            request.pixels = _NO_PIXELS
        request.finish(reason or Cancelled("cancelled by the caller"))

    def close(self) -> None:
        """Take no more requests; those accepted are still answered, then the threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the threads have ended after close(); False if they have not in that time."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _loop(self) -> None:
        ended = 0  # runs of this thread that are over and still counted
        while True:
            with self._changed:
                self._runs -= ended
                while self._here or not (self._closed or self._ready()):
                    self._changed.wait(None if self._here else self._company_s())
                expired, batch = self._form()
                if self._closed and not batch and not expired and not self._queue:
                    return
                self._runs += 1
                ended = 1
                if self._waiting:
                    self._changed.notify()
            for request in expired:
                request.finish(DeadlinePassed("the deadline passed in the queue"))
            if batch:
                self._execute(batch)

    def _free(self, count: int) -> bool:
        """Whether so many images could be run at once, and quickly. Called with the lock."""
        idle = not (self._here or self._runs or self._waiting or self._max_delay_s)
        return idle and count <= self._max_batch and 0.0 < count * self._image_s <= _HERE_S

    def _ready(self) -> bool:
        """Whether a batch should run now. Called with the lock."""
        if not self._waiting:
            # Only answered requests are left, if any; forget them.
            self._queue.clear()
            return False
        if not self._max_delay_s or self._waiting >= self._max_batch:
            return True
        return (self._company_s() or 0.0) <= 0.0

    def _company_s(self) -> float | None:
        """Seconds that the oldest request may still wait for company. Called with the lock."""
        if not self._waiting:
            return None
        oldest = min(request.arrived for request in self._queue if not request.finished)
        return oldest + self._max_delay_s - time.monotonic()

    def _form(self) -> tuple[list[Request], list[Piece]]:
        """Take the next batch off the queue: expired requests, and pieces of live ones.

        Called with the lock. Expired requests are marked as finished here, and count for nothing.
        """
        expired: list[Request] = []
        #: Where the piece of each request begins, in the order in which they were met.
        begins: dict[Request, int] = {}
        room = self._max_batch
        share = turn = max(1, room // max(1, self._queue.callers))
        now = time.monotonic()
        while self._queue and room:
            request = self._queue.first()
            if request.finished or request.expired(now):
                if not request.finished:
                    request.finished = True
                    self._waiting -= request.count - request.taken
                    expired.append(request)
                over = self._queue.pop()
            else:
                count = min(request.count - request.taken, room, turn)
                begins.setdefault(request, request.taken)
                request.taken += count
                self._waiting -= count
                room -= count
                turn -= count
                over = request.taken == request.count and self._queue.pop()
                if not turn and not over:
                    self._queue.pass_on()
                    over = True
            if over:
                turn = share
        if turn < share:  # the batch is full in the middle of a turn; the next begins with another
            self._queue.pass_on()
        batch = [(one, at, one.pixels[at : one.taken]) for one, at in begins.items()]
        return expired, batch

    def _execute(self, batch: list[Piece]) -> None:
        """Run a batch and answer the requests that are complete with it."""
        started = time.monotonic()
        count = sum(len(pixels) for _, _, pixels in batch)
        try:
            rows = self._run([pixels for _, _, pixels in batch])
            if len(rows) != count:
                raise RuntimeError(f"the engine gave {len(rows)} rows for {count} images")
            damaged = _is_damaged(rows)
        except Exception as error:  # noqa: BLE001 - whatever it is, these callers must be told
            self._fail([request for request, _, _ in batch], InternalFault(self._name, error))
            return
        compute_s = time.monotonic() - started
        self._image_s += 0.1 * (compute_s / count - self._image_s)
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
        self, request: Request, at: int, rows: Probabilities, started: float, compute_s: float
    ) -> None:
        """Add rows of a request that was cut; batches may end in another order than they began."""
        with self._changed:
            request.pieces[at] = rows
            request.returned += len(rows)
            request.compute_s += compute_s
            if request.returned < request.count:
                return
        try:
            whole = np.concatenate([request.pieces[at] for at in sorted(request.pieces)])
        except Exception as error:  # noqa: BLE001 - this caller must be told, the others served
            self._fail([request], InternalFault(self._name, error))
            return
        self._complete(request, whole, started)

    def _complete(self, request: Request, rows: Probabilities, started: float) -> None:
        with self._changed:
            if request.finished:
                return
            request.finished = True
        queue_s = started - request.arrived
        request.finish(Answer(rows, queue_s, request.compute_s, request.damaged))

    def _fail(self, requests: list[Request], fault: ServeError) -> None:
        for request in requests:
            self.cancel(request, fault)


def _is_damaged(rows: Probabilities) -> bool:
    """Whether some of the rows, float32 [N, K], are not finite.

    The sum of squares is finite if all are, at a fraction of the cost of looking at each: a
    probability is at most 1. vdot does not warn where it is not.
    """
    return not math.isfinite(np.vdot(rows, rows)) and not bool(np.isfinite(rows).all())
