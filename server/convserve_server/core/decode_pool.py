"""Threads that turn the files of requests into pixels, beside the engine.

The decoders release the GIL, so a picture is decoded while the engine runs the batch before it.
Images leave the queue one by one, and connections get equal shares of the threads' time: a request
of many images, or of expensive ones, is decoded by all threads together, and does not keep others
waiting. What an image costs is estimated from its header (convserve_imaging/picture_cost.py).
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convserve_imaging.errors import PictureError
from convserve_imaging.picture_cost import decoding_s
from convserve_server.core.errors import DeadlinePassed, InternalFault, QueueFull, ServeError
from convserve_server.core.fair_queue import FairQueue
from convserve_server.core.jobs import Job, JobState, Priority
from convserve_server.core.refusals import coarse_ms, waits_too_long
from convserve_server.telemetry.observer import NO_OBSERVER, Observer

Pixels = NDArray[np.uint8]

#: Makes of a file the pixels for a model, uint8 [H, W, C]; raises PictureError.
Decode = Callable[[bytes], Pixels]

#: Longest work of a thread that may wait, s: callers have mostly gone when it would be done.
_MAX_WORK_S = 10.0

#: Weight of one file against all before it, in how much longer decoding takes than estimated; and
#: the most that one file may differ from what was expected.
_WEIGHT = 0.05
_MOST_RATIO = 10.0


class Decoded(NamedTuple):
    """What became of the files of a request."""

    #: In their order, uint8 [H, W, C] each, or why there are no pixels.
    images: list[Pixels | PictureError]
    #: Seconds from arrival to the start of the first one.
    wait_s: float
    #: Seconds from there to the end of the last one.
    decode_s: float


class NextQueue(Protocol):
    """Where decoded images wait for an engine: a Batcher.

    Attributes:
        waiting: images in it.
        max_queue: most images in it.
        max_wait_s: longest time that a request may wait, s; 0: as long as its deadline allows.
    """

    @property
    def waiting(self) -> int: ...  # noqa: D102 - an attribute
    @property
    def max_queue(self) -> int: ...  # noqa: D102 - an attribute
    @property
    def max_wait_s(self) -> float: ...  # noqa: D102 - an attribute

    def later_refusal(
        self, job: Job[Any], wait_s: float, before_s: float, coming: int
    ) -> QueueFull | None:
        """See BatchQueue.later_refusal."""

    def seconds(self, count: int) -> float:
        """Returns what so many images take on an idle engine; 0 while that is not known."""


class DecodeJob(Job[Decoded]):
    """The files of one call on their way to pixels.

    Args:
        files: one image each, at least one.
        decode: makes pixels of them.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, unless cancelled, on one of the pool's threads; must
            not block.
        connection: by which the call came; connections take turns.
        priority: of the call.
    """

    __slots__ = ("costs_s", "decode", "files", "images", "left", "max_wait_s", "started")

    def __init__(
        self,
        files: Sequence[bytes],
        decode: Decode,
        deadline: float | None,
        done: Callable[[Decoded | ServeError], None],
        connection: Hashable = "",
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        super().__init__(len(files), sum(map(len, files)), deadline, done, connection, priority)
        self.files = files
        #: What decoding each of them will cost, as far as is known.
        self.costs_s = [decoding_s(file) for file in files]
        self.decode = decode
        #: Longest time that it may wait, s; 0: as long as its deadline allows.
        self.max_wait_s = 0.0
        self.started = 0.0
        self.images: list[Pixels | PictureError | None] = [None] * len(files)
        #: Images that are not decoded yet.
        self.left = len(files)

    def cost(self, first: int, count: int) -> float:
        """Returns what decoding some of its files will cost, s of one thread."""
        return sum(self.costs_s[first : first + count])


class DecodePool:
    """A queue of files and the threads that decode them.

    Args:
        threads: that decode.
        max_queue: most images waiting; more are refused.
        max_bytes: most bytes of files that wait or are being decoded; more are refused.
        max_work_s: most time of a thread that what waits may cost, s. Beyond that only those are
            refused who would have more waiting than their share of it.
        batch_share: of the threads' time, that batch calls get at least; see FairQueue.
        observer: of the files that are not decoded in time.
    """

    def __init__(
        self,
        threads: int,
        max_queue: int,
        max_bytes: int,
        max_work_s: float = _MAX_WORK_S,
        batch_share: float = 0.1,
        observer: Observer = NO_OBSERVER,
    ) -> None:
        self._queue: FairQueue[DecodeJob] = FairQueue(
            max_queue, max_bytes, max_work_s * threads, batch_share
        )
        self._observer = observer
        # How many times as long as estimated a file takes, with all that runs beside it.
        self._factor = 1.0
        self._estimated_s = self._taken_s = 0.001
        # Images that wait or are being decoded, by the version that will have them.
        self._coming: Counter[Decode] = Counter()
        self._closed = False
        self._changed = threading.Condition(threading.Lock())
        self._threads = [
            threading.Thread(target=self._loop, name=f"decode {number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.waiting

    def coming(self, decode: Decode) -> int:
        """Returns the images that wait or are being decoded, of the version with this decoder."""
        return self._coming.get(decode, 0)

    def submit(self, job: DecodeJob, batcher: NextQueue | None = None) -> None:
        """Queues the files of a request.

        Args:
            job: not queued yet.
            batcher: that will have the images. Those that wait there count as well, and the time
                that it needs, so that what is decoded will not be in vain.

        Raises:
            CannotMeetDeadline: if they cannot be answered within the deadline.
            QueueFull: if they do not fit into the queue, or would wait too long; nothing was
                decoded.
        """
        ahead = batcher.waiting if batcher is not None else 0
        max_waiting = batcher.max_queue if batcher is not None else None
        with self._changed:
            if job.state is JobState.FINISHED:
                return
            if refusal := self._queue.refusal(job, ahead, max_waiting):
                wait_s = self._queue.cost * self._factor / len(self._threads)
                raise QueueFull(
                    f"the queue for decoding is full: {refusal}",
                    retry_after_s=max(10, coarse_ms(wait_s)) / 1000,
                )
            if batcher is not None and (job.deadline is not None or batcher.max_wait_s):
                self._check_time(job, batcher)
            self._coming[job.decode] += job.count
            self._queue.append(job)
            self._changed.notify(job.count)

    def _check_time(self, job: DecodeJob, batcher: NextQueue) -> None:
        """Refuses a job that cannot be answered in time; notes by when it has to begin.

        Raises:
            CannotMeetDeadline, QueueFull: see submit().
        """
        queue, threads = self._queue, len(self._threads)
        cost_s = job.cost(0, job.count)
        wait_s = self._factor * queue.ahead(job.connection, job.priority, cost_s, cost=True)
        # Where nothing waits, the factor may be wrong, and is only learnt by decoding.
        own_s = self._factor * cost_s / min(threads, job.count) if queue.waiting else 0.0
        images = int(queue.ahead(job.connection, job.priority, job.count))
        refusal = batcher.later_refusal(
            job, wait_s / threads, own_s, min(images, self._coming[job.decode])
        )
        if refusal is not None:
            raise refusal
        if batcher.max_wait_s:
            job.max_wait_s = batcher.max_wait_s
            job.start_by = job.arrived + batcher.max_wait_s
        if job.deadline is not None:
            job.start_by = min(job.start_by, job.deadline - own_s - batcher.seconds(job.count))

    def cancel(self, job: DecodeJob) -> None:
        """Decodes no more of them, or none if not submitted yet; no outcome is handed over."""
        with self._changed:
            self._drop(job)

    def close(self) -> None:
        """Ends the threads after the image that each is at; what waits is not decoded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop(self, job: DecodeJob) -> bool:
        """Finishes a job; returns False if it is finished. Called with the lock."""
        submitted = job.state is not JobState.NEW
        if not self._queue.finish(job):
            return False
        job.files = ()
        if submitted:
            self._forget(job)
        return True

    def _forget(self, job: DecodeJob) -> None:
        """Notes that the images of a job are not coming any more. Called with the lock."""
        job.files = ()
        self._coming[job.decode] -= job.count
        if not self._coming[job.decode]:
            del self._coming[job.decode]

    def _note(self, estimated_s: float, taken_s: float) -> None:
        """Compares what a file took with what was estimated. Called with the lock."""
        taken_s = min(taken_s, _MOST_RATIO * self._factor * estimated_s)
        self._estimated_s += _WEIGHT * (estimated_s - self._estimated_s)
        self._taken_s += _WEIGHT * (taken_s - self._taken_s)
        self._factor = self._taken_s / self._estimated_s

    def _expired(self, job: DecodeJob, now: float) -> ServeError:
        if job.deadline is not None and job.deadline <= now:
            return DeadlinePassed("the deadline passed before the images were decoded")
        if job.max_wait_s and job.arrived + job.max_wait_s <= now:
            return waits_too_long("for decoding", now - job.arrived, job.max_wait_s)
        return DeadlinePassed("the deadline would have passed before the answer")

    def _loop(self) -> None:
        # A call for each turn: what its variables hold need not stay in memory until the next.
        while self._next():
            pass

    def _next(self) -> bool:
        """Waits for an image and decodes it; returns False after close()."""
        with self._changed:
            while not self._closed and not self._queue:
                self._changed.wait()
            if self._closed:
                return False
            now = time.monotonic()
            expired, taken = self._queue.take(1, now)
            for job in expired:
                self._forget(job)
            images = [(job, at, job.files[at]) for job, at in taken]
            for job, _ in taken:
                job.started = job.started or now
        for job in expired:
            self._observer.expired("decode", job.count)
            job.finish(self._expired(job, now))
        for job, at, file in images:
            self._decode(job, at, file)
        return True

    def _decode(self, job: DecodeJob, at: int, file: bytes) -> None:
        """Decodes one image, and hands over the outcome after the last one."""
        fault: Exception | None = None
        began = time.monotonic()
        try:
            job.images[at] = job.decode(file)
        except PictureError as error:
            # Its traceback has this frame, which has the files: a circle that would keep the data.
            job.images[at] = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - it is this caller's answer, the others go on
            fault = error
        now = time.monotonic()
        with self._changed:
            self._note(job.costs_s[at], now - began)
            job.left -= 1
            if fault is None and job.left:
                return
            if not self._drop(job):
                return
        if fault is not None:
            job.finish(InternalFault("decoding an image", fault))
            return
        images = [image for image in job.images if image is not None]
        job.finish(Decoded(images, job.started - job.arrived, now - job.started))
