"""Which workers' engines are at work: a byte for each worker, in memory that they share."""

import mmap
import threading

from convserve_server.host import shared_memory

_MOST = 255


def create(workers: int) -> int:
    """Returns the descriptor of a new file, for the workers to inherit; no engine is at work."""
    return shared_memory.create("convserve-engines", workers)


class EngineActivity:
    """One worker's view of the file. It may be some microseconds old: it only advises.

    Args:
        descriptor: Of the file.
        index: Of this worker's byte, from 0.
    """

    def __init__(self, descriptor: int, index: int) -> None:
        self._bytes = mmap.mmap(descriptor, 0)
        self._index = index
        self._others = [other for other in range(len(self._bytes)) if other != index]
        self._lock = threading.Lock()
        self._busy = 0
        # One that was killed at work left its mark.
        self._bytes[index] = 0

    def begin(self) -> bool:
        """Notes that an engine of this worker is at work; returns whether it is the only one."""
        with self._lock:
            self._busy += 1
            self._bytes[self._index] = min(self._busy, _MOST)
            only = self._busy == 1
        return only and not any(self._bytes[other] for other in self._others)

    def end(self) -> None:
        """Notes that it has finished."""
        with self._lock:
            self._busy -= 1
            self._bytes[self._index] = min(self._busy, _MOST)
