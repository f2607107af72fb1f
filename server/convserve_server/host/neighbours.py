"""Which workers' engines are at work: a byte for each worker, in a file that all of them map."""

import mmap
import threading
from pathlib import Path

_MOST = 255


def create(path: Path, workers: int) -> None:
    """Make the file, with no engine at work."""
    path.write_bytes(bytes(workers))


class Neighbours:
    """One worker's view of the file. What it says may be some microseconds old: it only advises.

    Args:
        path: of the file.
        place: of this worker's byte, from 0.
    """

    def __init__(self, path: Path, place: int) -> None:
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)
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
