"""Threads that turn the files of requests into pixels, beside the engine.

The decoders release the GIL, so a picture is decoded while the engine runs the batch before it.
Images leave the queue one by one, and callers are given equal shares of the threads' time: a
request of many, or of dear ones, is decoded by all threads together, and does not keep others
waiting. What an image costs is estimated by its header (convserve_imaging/picture_cost.py).
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convserve_imaging.errors import PictureError
from convserve_imaging.picture_cost import decoding_s
from convserve_server.decode.work_turns import WorkTurns
from convserve_server.errors import DeadlinePassed, InternalFault, QueueFull, ServeError

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

#: Makes of a file what the model takes, uint8 [H, W, C]; raises PictureError.
Decode = Callable[[bytes], Pixels]

#: Longest work of a thread that may wait, s: callers have mostly gone when it would be done.
_MAX_WORK_S = 10.0
_NOTHING_S = 1e-6


class Decoded(NamedTuple):
    """What became of the files of a request."""

    #: In their order, uint8 [H, W, C] each, or why there are no pixels.
    images: list[Pixels | PictureError]
    #: Seconds from arrival to the start of the first one.
    wait_s: float
    #: Seconds from there to the end of the last one.
    decode_s: float


class Files:
    """The files of one call on their way to pixels.

    Args:
        files: one image each, at least one.
        decode: makes pixels of them.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, unless cancelled, on one of the pool's threads; must
            not block.
        caller: whose they are; callers take turns.
    """

    __slots__ = (
        "_done",
        "arrived",
        "caller",
        "costs_s",
        "deadline",
        "decode",
        "files",
        "finished",
        "images",
        "left",
        "queued",
        "size",
        "started",
        "taken",
    )

    def __init__(
        self,
        files: Sequence[bytes],
        decode: Decode,
        deadline: float | None,
        done: Callable[[Decoded | ServeError], None],
        caller: Hashable = "",
    ) -> None:
        self.files = files
        self.caller = caller
        #: Bytes of all files.
        self.size = sum(map(len, files))
        #: What decoding each of them will cost, as far as is known.
        self.costs_s = [decoding_s(file) for file in files]
        self.decode = decode
        self.deadline = deadline
        self._done = done
        self.arrived = time.monotonic()
        self.started = 0.0
        self.images: list[Pixels | PictureError | None] = [None] * len(files)
        #: Images that threads have taken, and those that are not finished yet.
        self.taken = 0
        self.left = len(files)
        self.queued = False
        self.finished = False

    def finish(self, outcome: Decoded | ServeError) -> None:
        """Hand over the outcome; whoever marks the files finished calls this."""
        try:
            self._done(outcome)
        except Exception:
            # The caller's fault must not take the thread and so every later request.
            log.exception("passing on decoded images failed")


class DecodePool:
    """A queue of files and the threads that work it off.

    Args:
        threads: that decode.
        max_queue: most images waiting; more are refused.
        max_bytes: most bytes of files that wait or are being decoded; more are refused.
        max_work_s: most time of a thread that what waits may cost, s. Beyond that only those are
            refused who would have more waiting than their share of it.
    """

    def __init__(
        self, threads: int, max_queue: int, max_bytes: int, max_work_s: float = _MAX_WORK_S
    ) -> None:
        self._max_queue = max_queue
        self._max_bytes = max_bytes
        self._max_work_s = max_work_s * threads
        self._queue: WorkTurns[Files] = WorkTurns(lambda files: files.costs_s[files.taken])
        self._waiting = 0
        self._bytes = 0
        #: Cost of the images that wait, s: in all, and of each caller that has some.
        self._work_s = 0.0
        self._work_of: defaultdict[Hashable, float] = defaultdict(float)
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
        return self._waiting

    def submit(self, files: Files, ahead: int = 0, room: int | None = None) -> None:
        """Queue the files of a request.

        Args:
            files: not queued yet.
            ahead: decoded images that wait for the engine; they count as well, so that what is
                decoded will not be refused afterwards.
            room: most images that may wait for that engine, if fewer than for decoding.

        Raises:
            QueueFull: if they do not fit into the queue; nothing was decoded.
        """
        count = len(files.files)
        with self._changed:
            if files.finished:
                return
            # A request that is larger than the whole queue may still have an empty one.
            waiting = self._waiting + ahead
            most = self._max_queue if room is None else min(room, self._max_queue)
            full = ""
            work_s = sum(files.costs_s)
            if waiting and waiting + count > most:
                full = f"{waiting} images wait, {count} more exceed the limit of {most}"
            elif self._bytes and self._bytes + files.size > self._max_bytes:
                full = (
                    f"{self._bytes} bytes wait, {files.size} more exceed the limit of "
                    f"{self._max_bytes}"
                )
            elif self._waiting and self._is_too_much(files.caller, work_s):
                full = (
                    f"images wait that take {self._work_s:.1f} s to decode, {work_s:.1f} s more "
                    f"exceed the limit of {self._max_work_s:.1f} s"
                )
            if full:
                raise QueueFull(
                    f"the queue for decoding is full: {full}",
                    retry_after_s=max(0.01, self._work_s / len(self._threads)),
                )
            files.queued = True
            self._queue.append(files.caller, files)
            self._waiting += count
            self._bytes += files.size
            self._work_s += work_s
            self._work_of[files.caller] += work_s
            self._changed.notify(count)

    def cancel(self, files: Files) -> None:
        """Decode no more of them, or none if not submitted yet; no outcome is handed over."""
        with self._changed:
            self._drop(files)

    def close(self) -> None:
        """End the threads after what they are at; what waits is not decoded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_too_much(self, caller: Hashable, work_s: float) -> bool:
        """Whether more work of a caller would exceed the limit, and the caller's share of it."""
        own_s = self._work_of.get(caller, 0.0)
        share_s = self._max_work_s / (len(self._work_of) + (caller not in self._work_of))
        return self._work_s + work_s > self._max_work_s and own_s + work_s > share_s

    def _done_waiting(self, files: Files, costs_s: Sequence[float]) -> None:
        """Forget images that wait no more. Called with the lock."""
        self._waiting -= len(costs_s)
        done_s = sum(costs_s)
        # What rounding leaves is less than any image costs.
        self._work_s = self._work_s - done_s if self._waiting else 0.0
        self._work_of[files.caller] -= done_s
        if self._work_of[files.caller] < _NOTHING_S:
            del self._work_of[files.caller]

    def _drop(self, files: Files) -> bool:
        """Forget files that are not finished; False if they are. Called with the lock."""
        if files.finished:
            return False
        files.finished = True
        if files.queued:
            self._done_waiting(files, files.costs_s[files.taken :])
            self._bytes -= files.size
        files.files = ()
        return True

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._queue:
                    self._changed.wait()
                if self._closed:
                    return
                files = self._queue.first()
                if files.finished:
                    self._queue.drop()
                    continue
                now = time.monotonic()
                expired = files.deadline is not None and files.deadline <= now
                if expired:
                    self._queue.drop()
                    self._drop(files)
                else:
                    place = files.taken
                    data = files.files[place]
                    files.started = files.started or now
                    self._done_waiting(files, files.costs_s[place : place + 1])
                    files.taken += 1
                    self._queue.take(last=files.taken == len(files.files))
            if expired:
                files.finish(DeadlinePassed("the deadline passed before the images were decoded"))
            else:
                self._decode(files, place, data)
                # They need not stay in memory until there are others.
                del data
            del files

    def _decode(self, files: Files, place: int, data: bytes) -> None:
        """Decode one image, and hand over the outcome after the last one."""
        fault: Exception | None = None
        try:
            files.images[place] = files.decode(data)
        except PictureError as error:
            # Its traceback has this frame, which has the files: a circle that would keep the data.
            files.images[place] = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - this caller must be told, the others served
            fault = error
        now = time.monotonic()
        with self._changed:
            files.left -= 1
            if fault is None and files.left:
                return
            if not self._drop(files):
                return
        if fault is not None:
            files.finish(InternalFault("decoding an image", fault))
            return
        images = [image for image in files.images if image is not None]
        files.finish(Decoded(images, files.started - files.arrived, now - files.started))
