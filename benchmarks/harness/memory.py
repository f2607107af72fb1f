"""Memory of a server's processes. Source: proc_pid_status(5), proc_pid_smaps(5)."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.harness.processes import process_tree

_EVERY_S = 0.02


def private_bytes(root: int) -> int:
    """Returns the memory of a process and all below it that belongs to no file."""
    return sum(
        _sum_of(Path(f"/proc/{pid}/status"), ("RssAnon", "RssShmem")) for pid in process_tree(root)
    )


def proportional_bytes(root: int) -> list[int]:
    """Returns the memory of a process and of each below it; a page of n processes counts 1/n."""
    return [_sum_of(Path(f"/proc/{pid}/smaps_rollup"), ("Pss",)) for pid in process_tree(root)]


def _sum_of(file: Path, names: tuple[str, ...]) -> int:
    """Fields of one process, bytes; 0 if it has ended since it was listed."""
    try:
        lines = file.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return sum(int(fields[name].split()[0]) for name in names if name in fields) * 1024


class MemoryWatch:
    """The most private memory that a process and all below it have at once, read every 20 ms.

    What belongs to files is left out: the kernel drops it when memory is needed.

    Args:
        root: id of the process above all others.
        limit: bytes at which all of them are killed; None: never.

    Attributes:
        most: bytes.
        killed: whether they were.
    """

    def __init__(self, root: int, limit: int | None = None) -> None:
        self._root = root
        self._limit = limit
        self.most = 0
        self.killed = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches until the block ends."""
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,))
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def _watch(self, stop: threading.Event) -> None:
        while not self.killed and not stop.wait(_EVERY_S):
            self.most = max(self.most, private_bytes(self._root))
            if self._limit is not None and self.most > self._limit:
                self.killed = True
                for pid in process_tree(self._root):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
