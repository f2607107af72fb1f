"""Servers in containers with limits: started, measured and stopped as any other server."""

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.engine import Engine
from benchmarks.processes import ServerProcess, process_tree

_EVERY_S = 0.02


class ServerContainer(ServerProcess):
    """Convserve from the image convserve-server, on the machine's own network.

    Args:
        engine: runs it.
        name: for the table.
        models: folder of bundles.
        limits: options of docker run, as --cpus.
        flags: of convserve-serve.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        models: Path,
        limits: Sequence[str] = (),
        flags: Sequence[str] = (),
    ) -> None:
        self._engine = engine
        self._container = f"convserve-bench-{uuid.uuid4().hex[:12]}"
        # The network as it is, so that nothing but the server is measured.
        super().__init__(
            name,
            ["docker", "run", "--rm", "--name", self._container, "--network", "host",
             "--read-only", "--tmpfs", "/tmp", "--init", *limits,
             "-v", f"{models.resolve()}:/models:ro", "convserve-server",
             "--host", "127.0.0.1", "--port", "0", *flags],
        )  # fmt: skip
        self._root = 0

    def root(self) -> int:
        """See ServerProcess.root; seen from this machine."""
        if not self._root:
            self._root = int(self._engine.inspect(self._container)["State"]["Pid"])
        return self._root

    def settings(self) -> dict[str, Any]:
        """What it has chosen, from its log."""
        for message in self.messages():
            _, found, settings = message.partition("settings: ")
            if found:
                return dict(json.loads(settings))
        raise LookupError(f"{self.name} has not said its settings")

    def deaths(self) -> list[str]:
        """What it says of workers that ended."""
        return [message for message in self.messages() if "ended with status" in message]


class MemoryWatch:
    """The most memory that a process and all below it have at once, looked at every 20 ms.

    What belongs to files is left out: it goes when it is needed. Source: proc_pid_status(5).

    Attributes:
        most: bytes.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self.most = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look until the block ends."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(_EVERY_S):
                self.most = max(self.most, private_bytes(self._root))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
        finally:
            stop.set()
            looking.join()


def private_bytes(root: int) -> int:
    """Memory of a process and all below it that belongs to no file."""
    return sum(_private_bytes(pid) for pid in process_tree(root))


def _private_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # ended while we looked
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return sum(int(fields.get(name, "0").split()[0]) for name in ("RssAnon", "RssShmem")) * 1024
