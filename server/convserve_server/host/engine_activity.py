"""Which workers' engines are at work, and since when others are not, in memory that they share."""

import threading
import time

from convserve_server.host import shared_memory

#: Of a worker, numbers: batches that run; and time.monotonic_ns() at which the last one ended.
_NUMBERS = 2
_BYTES = _NUMBERS * 8

#: An engine that has done nothing for so long is idle, ns: not between two batches of a load.
_IDLE_NS = 2_000_000


def create(workers: int) -> int:
    """Returns the descriptor of a new file, for the workers to inherit; no engine is at work."""
    return shared_memory.create("convserve-engines", workers * _BYTES)


class EngineActivity:
    """One worker's view of the file. It may be some microseconds old: it only advises.

    Args:
        descriptor: Of the file.
        index: Of this worker, from 0.
    """

    def __init__(self, descriptor: int, index: int) -> None:
        # Each is written at once, by one process.
        self._numbers: memoryview[int] = memoryview(shared_memory.shared(descriptor)).cast("Q")
        self._at = index * _NUMBERS
        self._others = [at for at in range(0, len(self._numbers), _NUMBERS) if at != self._at]
        self._lock = threading.Lock()
        self._busy = 0
        # One that was killed at work left its mark.
        self._numbers[self._at] = 0

    def begin(self) -> bool:
        """Notes that an engine of this worker is at work; returns whether it is the only one."""
        with self._lock:
            self._busy += 1
            self._numbers[self._at] = self._busy
            only = self._busy == 1
        return only and not any(self._numbers[other] for other in self._others)

    def end(self) -> None:
        """Notes that it has finished."""
        with self._lock:
            self._busy -= 1
            self._numbers[self._at + 1] = time.monotonic_ns()
            self._numbers[self._at] = self._busy

    def idle_others(self) -> int:
        """Returns how many other workers' engines are idle, less the CPUs of those that are used.

        Batches beyond the first of a worker run on the CPU of another one; see SpareCpus.
        """
        numbers, before = self._numbers, time.monotonic_ns() - _IDLE_NS
        idle = 0
        for other in self._others:
            if running := numbers[other]:
                idle -= running - 1
            elif numbers[other + 1] <= before:
                idle += 1
        return idle
