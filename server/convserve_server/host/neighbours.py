"""Which workers' engines are at work: a byte for each worker, in a file that all of them map.

The file has no name, so that nothing that cleans folders takes it away, and none has to be there.
"""

import mmap
import os
import tempfile
import threading

_MOST = 255


def create(workers: int) -> int:
    """Returns the descriptor of a new file, for the workers to inherit; no engine is at work."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("convserve-engines")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, bytes(workers))
    return descriptor


class Neighbours:
    """One worker's view of the file. What it says may be some microseconds old: it only advises.

    Args:
        descriptor: of the file.
        place: of this worker's byte, from 0.
    """

    def __init__(self, descriptor: int, place: int) -> None:
        self._bytes = mmap.mmap(descriptor, 0)
        self._place = place
        self._others = [other for other in range(len(self._bytes)) if other != place]
        self._lock = threading.Lock()
        self._busy = 0
        # One that was killed at work left its mark.
        self._bytes[place] = 0

    def begin(self) -> bool:
        """Note that an engine of this worker is at work; returns whether it is the only one."""
        with self._lock:
            self._busy += 1
            self._bytes[self._place] = min(self._busy, _MOST)
            alone = self._busy == 1
        return alone and not any(self._bytes[other] for other in self._others)

    def end(self) -> None:
        """Note that it has finished."""
        with self._lock:
            self._busy -= 1
            self._bytes[self._place] = min(self._busy, _MOST)
