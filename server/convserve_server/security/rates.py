"""How often each key may call: rates and quotas, exact over all workers.

What is counted of a key is in memory that all workers share, found by the key's name. So it holds
over restarts of workers and over changes of the file, but not over a start of the server.

A rate is the generic cell rate algorithm: one number says when the next call would be due if calls
came evenly; a call is allowed unless that is further ahead than the burst allows.

Source: ITU-T I.371, annex A (virtual scheduling algorithm).
"""

import hashlib
import mmap
import time
from collections.abc import Callable
from typing import NamedTuple

from convserve_server.security.keys import Key
from convserve_server.security.shared_mutex import (
    MUTEX_BYTES,
    ROBUST,
    RecordLock,
    RobustMutex,
    SharedMutex,
)

#: Keys with limits, over the time that a server runs.
MOST_KEYS = 4096

#: Of what is counted of a key: the lock, its name, and four numbers.
_SLOT = 128
_NAME_AT, _NAME_BYTES = MUTEX_BYTES, 16
_WORD = 8
#: Words of a slot: when the next call and the next image are due, time.monotonic(); the day that
#: is counted, since 1970, and its calls.
_CALLS, _IMAGES, _DAY, _USED = range((_NAME_AT + _NAME_BYTES) // _WORD, _SLOT // _WORD - 2)
_DAY_S = 86400

#: That a burst of images may be ahead, s.
_IMAGES_BURST_S = 0.1

#: What sums of times, s, are off by.
_EPSILON_S = 1e-6


class Excess(NamedTuple):
    """A call over a limit.

    Attributes:
        field: rate, images_rate or quota_per_day.
        retry_after_s: until one is allowed again.
    """

    field: str
    retry_after_s: float


def rates_bytes() -> int:
    """Returns the size of the memory of all workers."""
    return MOST_KEYS * _SLOT


class Rates:
    """The limits of all keys.

    Args:
        memory: that all processes have, or one of this process alone.
        descriptor: of its file; -1 if it has none.
        clock: as time.monotonic, which all processes of a machine share.
        wall_clock: as time.time.
    """

    def __init__(
        self,
        memory: mmap.mmap,
        descriptor: int = -1,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._memory = memory
        self._descriptor = descriptor
        self._clock = clock
        self._wall_clock = wall_clock

    def prepare(self) -> None:
        """Makes zeroed memory ready; in the process that has made it, before any other has it.

        Raises:
            OSError: the system cannot.
        """
        if ROBUST:
            for slot in range(MOST_KEYS):
                RobustMutex.prepare(self._memory, slot * _SLOT)

    def reserve(self, keys: "tuple[Key, ...]") -> None:
        """Finds where keys are counted; in one process alone, before others call limit().

        Raises:
            ValueError: there is no more memory for them; none of them was given any.
        """
        known = self._known()
        wanted = {_digest(key.name) for key in keys if key.is_limited} - known.keys()
        if len(known) + len(wanted) > MOST_KEYS:
            raise ValueError(
                f"keys: expected at most {MOST_KEYS} keys with limits since the server has "
                f"started, got {len(known) + len(wanted)}"
            )
        for slot, digest in enumerate(sorted(wanted), len(known)):
            at = slot * _SLOT + _NAME_AT
            self._memory[at : at + _NAME_BYTES] = digest

    def limits(self, keys: "tuple[Key, ...]") -> "dict[str, Limit]":
        """Returns the limits of those keys that have some, by their names.

        Raises:
            ValueError: one was not reserved.
        """
        known = self._known()
        limits = {}
        for key in keys:
            if not key.is_limited:
                continue
            slot = known.get(_digest(key.name))
            if slot is None:
                raise ValueError(f"keys: expected those that were reserved, got {key.name!r}")
            limits[key.name] = self._limit(key, slot)
        return limits

    def _limit(self, key: Key, slot: int) -> "Limit":
        at = slot * _SLOT
        mutex: SharedMutex = (
            RobustMutex(self._memory, at) if ROBUST else RecordLock(self._descriptor, at)
        )
        words = memoryview(self._memory)[at : at + _SLOT]
        return Limit(key, mutex, words, self._clock, self._wall_clock)

    def _known(self) -> dict[bytes, int]:
        """Returns the slots by the digests of their names."""
        known: dict[bytes, int] = {}
        for slot in range(MOST_KEYS):
            at = slot * _SLOT + _NAME_AT
            digest = self._memory[at : at + _NAME_BYTES]
            if not any(digest):
                break
            known[digest] = slot
        return known


class Limit:
    """How often one key may call.

    Args:
        key: with a limit.
        mutex: for all that is counted of it.
        words: its slot.
        clock: see Rates.
        wall_clock: see Rates.

    Attributes:
        counts_images: whether images are counted.
    """

    __slots__ = (
        "_burst_s",
        "_call_s",
        "_clock",
        "_image_s",
        "_mutex",
        "_numbers",
        "_quota",
        "_times",
        "_wall_clock",
        "counts_images",
    )

    def __init__(
        self,
        key: Key,
        mutex: SharedMutex,
        words: memoryview,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._mutex = mutex
        self._times = words.cast("d")
        self._numbers = words.cast("q")
        self._clock = clock
        self._wall_clock = wall_clock
        self._call_s = 1 / key.rate if key.rate else 0.0
        self._burst_s = (key.burst - 1) * self._call_s + _EPSILON_S
        self._image_s = 1 / key.images_rate if key.images_rate else 0.0
        self._quota = key.quota_per_day
        self.counts_images = bool(key.images_rate)

    def take_call(self) -> Excess | None:
        """Counts a call; returns why it is not allowed, and then does not count it."""
        now = self._clock()
        times = self._times
        # Times only grow, so a call that is over the rate needs no lock to be refused.
        if times[_CALLS] - now > self._burst_s and self._call_s:
            return Excess("rate", times[_CALLS] - self._burst_s - now)
        self._mutex.acquire()
        try:
            due = times[_CALLS]
            if due - now > self._burst_s and self._call_s:
                return Excess("rate", due - self._burst_s - now)
            if self._quota is not None and (excess := self._take_of_day(self._quota)):
                return excess
            if self._call_s:
                times[_CALLS] = (due if due > now else now) + self._call_s
        finally:
            self._mutex.release()
        return None

    def images_excess(self) -> Excess | None:
        """Returns whether so many images were counted that no more are allowed now."""
        ahead_s = self._times[_IMAGES] - self._clock() - _IMAGES_BURST_S
        if self.counts_images and ahead_s > 0:
            return Excess("images_rate", ahead_s)
        return None

    def take_images(self, images: int) -> Excess | None:
        """Counts the images of a call; returns why it is not allowed, and then counts none.

        A call is allowed unless those before it were too many; so a large one is, too, and those
        after it wait longer.
        """
        if excess := self.images_excess():
            return excess
        self._mutex.acquire()
        try:
            if excess := self.images_excess():
                return excess
            due, now = self._times[_IMAGES], self._clock()
            self._times[_IMAGES] = (due if due > now else now) + images * self._image_s
        finally:
            self._mutex.release()
        return None

    def _take_of_day(self, quota: int) -> Excess | None:
        """Counts a call of this day. Called with the lock."""
        numbers, now = self._numbers, self._wall_clock()
        day = int(now // _DAY_S)
        if numbers[_DAY] < day:
            numbers[_USED] = 0
            numbers[_DAY] = day
        if numbers[_USED] >= quota:
            return Excess("quota_per_day", (numbers[_DAY] + 1) * _DAY_S - now)
        numbers[_USED] += 1
        return None


def _digest(name: str) -> bytes:
    # Of all zeros is a slot that nobody has; that a name has such a digest does not happen.
    return hashlib.sha256(name.encode()).digest()[:_NAME_BYTES]
