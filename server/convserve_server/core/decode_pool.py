"""Threads that turn the files of requests into pixels, beside the engine.

The decoders release the GIL, so a picture is decoded while the engine runs the batch before it.
Images leave the queue one by one, and connections get equal shares of the threads' time: a request
of many images, or of expensive ones, is decoded by all threads together, and does not keep others
waiting. What an image costs is estimated from its header (convserve_imaging/picture_cost.py).
"""

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convserve_imaging.errors import PictureError
from convserve_imaging.picture_cost import decoding_s
from convserve_server.core.errors import DeadlinePassed, InternalFault, QueueFull, ServeError
from convserve_server.core.fair_queue import FairQueue
from convserve_server.core.jobs import Job, JobState
from convserve_server.telemetry.observer import NO_OBSERVER, Observer

Pixels = NDArray[np.uint8]

#: Makes of a file the pixels for a model, uint8 [H, W, C]; raises PictureError.
Decode = Callable[[bytes], Pixels]

#: Longest work of a thread that may wait, s: callers have mostly gone when it would be done.
_MAX_WORK_S = 10.0


class Decoded(NamedTuple):
    """What became of the files of a request."""

    #: In their order, uint8 [H, W, C] each, or why there are no pixels.
    images: list[Pixels | PictureError]
    #: Seconds from arrival to the start of the first one.
    wait_s: float
    #: Seconds from there to the end of the last one.
    decode_s: float


class DecodeJob(Job[Decoded]):
    """The files of one call on their way to pixels.

    Args:
        files: one image each, at least one.
        decode: makes pixels of them.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, unless cancelled, on one of the pool's threads; must
            not block.
        connection: by which the call came; connections take turns.
    """

    __slots__ = ("costs_s", "decode", "files", "images", "left", "started")

    def __init__(
        self,
        files: Sequence[bytes],
        decode: Decode,
        deadline: float | None,
        done: Callable[[Decoded | ServeError], None],
        connection: Hashable = "",
    ) -> None:
        super().__init__(len(files), sum(map(len, files)), deadline, done, connection)
        self.files = files
        #: What decoding each of them will cost, as far as is known.
        self.costs_s = [decoding_s(file) for file in files]
        self.decode = decode
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
        observer: of the files that are decoded.
    """

    def __init__(
        self,
        threads: int,
        max_queue: int,
        max_bytes: int,
        max_work_s: float = _MAX_WORK_S,
        observer: Observer = NO_OBSERVER,
    ) -> None:
        self._queue: FairQueue[DecodeJob] = FairQueue(max_queue, max_bytes, max_work_s * threads)
        self._observer = observer
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

    def submit(self, job: DecodeJob, ahead: int = 0, max_waiting: int | None = None) -> None:
        """Queues the files of a request.

        Args:
            job: not queued yet.
            ahead: decoded images that wait for the engine; they count as well, so that what is
                decoded will not be refused afterwards.
            max_waiting: most images that may wait for that engine, if fewer than for decoding.

        Raises:
            QueueFull: if they do not fit into the queue; nothing was decoded.
        """
        with self._changed:
            if job.state is JobState.FINISHED:
                return
            if refusal := self._queue.refusal(job, ahead, max_waiting):
                raise QueueFull(
                    f"the queue for decoding is full: {refusal}",
                    retry_after_s=max(0.01, self._queue.cost / len(self._threads)),
                )
            self._queue.append(job)
            self._changed.notify(job.count)

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
        if not self._queue.finish(job):
            return False
        job.files = ()
        return True

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
                job.files = ()
            images = [(job, at, job.files[at]) for job, at in taken]
            for job, _ in taken:
                job.started = job.started or now
        for job in expired:
            self._observer.expired("decode", job.count)
            job.finish(DeadlinePassed("the deadline passed before the images were decoded"))
        for job, at, file in images:
            self._decode(job, at, file)
        return True

    def _decode(self, job: DecodeJob, at: int, file: bytes) -> None:
        """Decodes one image, and hands over the outcome after the last one."""
        fault: Exception | None = None
        try:
            job.images[at] = job.decode(file)
        except PictureError as error:
            # Its traceback has this frame, which has the files: a circle that would keep the data.
            job.images[at] = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - it is this caller's answer, the others go on
            fault = error
        now = time.monotonic()
        with self._changed:
            job.left -= 1
            if fault is None and job.left:
                return
            if not self._drop(job):
                return
        if fault is not None:
            job.finish(InternalFault("decoding an image", fault))
            return
        images = [image for image in job.images if image is not None]
        decoded = Decoded(images, job.started - job.arrived, now - job.started)
        self._observer.decoded(job.count, decoded.wait_s, decoded.decode_s)
        job.finish(decoded)
