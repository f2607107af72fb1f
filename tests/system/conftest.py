"""Whole programs, run as a user runs them."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.bundles import write_bundle

WAIT_S = 120.0
ROOT = Path(__file__).parents[2]


class ServerProcess:
    """convserve-serve with JSON logs, on a free port."""

    def __init__(
        self, models: Path | str, *flags: str, python: Path = Path(sys.executable)
    ) -> None:
        self.process = subprocess.Popen(
            [
                python, "-I", "-m", "convserve_server.main", "--models", str(models),
                "--port", "0", "--log-format", "json", *flags,
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if "CONVSERVE_" not in key},
        )  # fmt: skip
        self.log: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                entry = json.loads(line)
                self.log.append(entry)
                self._lines.put(entry)
        self._lines.put(None)

    def wait_for(self, text: str) -> dict[str, Any]:
        """Wait for a log entry with a text in its message; fails if the server ends first."""
        while (entry := self._lines.get(timeout=WAIT_S)) is not None:
            if text in entry["message"]:
                return entry
        raise AssertionError(f"ended without {text!r}: {self.log}")

    def wait_for_each(self, *texts: str) -> list[dict[str, Any]]:
        """Wait for a log entry with each of some texts, in whatever order; returns the entries."""
        found: dict[str, dict[str, Any]] = {}
        while found.keys() != set(texts):
            entry = self._lines.get(timeout=WAIT_S)
            assert entry is not None, f"ended without one of {texts}: {self.log}"
            for text in texts:
                if text in entry["message"]:
                    found.setdefault(text, entry)
        return [found[text] for text in texts]

    def wait_until_serving(self) -> str:
        """Wait until all workers serve; returns the address."""
        address: str = self.wait_for("listening on")["address"]
        return address

    def worker_pids(self) -> list[int]:
        """The process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        status = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return status


class StartServer(Protocol):
    def __call__(self, *flags: str) -> ServerProcess: ...


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with one small bundle, mnist/1."""
    write_bundle(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def start_server(models: Path) -> Iterator[StartServer]:
    """Start servers over the models folder; any that is left at the end is killed."""
    servers: list[ServerProcess] = []

    def start(*flags: str) -> ServerProcess:
        servers.append(ServerProcess(models, *flags))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()
        # What pytest shows of a test that failed, and of no other.
        print(*(json.dumps(entry) for entry in server.log), sep="\n")
