"""Servers in containers with limits: started, measured and stopped as any other server."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.containers.engine import Engine
from benchmarks.harness.processes import ServerProcess


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
             "--host", "0.0.0.0", "--insecure", "--port", "0", *flags],
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
        raise LookupError(f"{self.name} has not logged its settings")

    def deaths(self) -> list[str]:
        """What it says of workers that ended."""
        return [message for message in self.messages() if "ended with status" in message]
