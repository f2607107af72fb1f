"""Several processes of `convserve-train fit`, started as a launcher does, on this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from convserve_trainer.host.launcher import ADDRESSES, COUNT, NUMBER
from tests.program import Program

WAIT_S = 600
FIT = ("-m", "convserve_trainer.main", "fit")


class Launched:
    """The processes, from `with` to the end of it; what is left of them then is killed.

    Args:
        count: of them; 1 trains alone.
        command: arguments of Python, the same for all.
        cache: folder that keeps what JAX compiles: most of the time of a small training.
        own: more arguments of some of them, by number.
    """

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        cache: Path,
        own: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self._count = count
        self._command = [sys.executable, *command]
        self._own = own or {}
        self._environment = {
            name: value for name, value in os.environ.items() if name not in (ADDRESSES, COUNT)
        } | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._held = ExitStack()
        self.processes: list[Program[str]] = []

    def __enter__(self) -> "Launched":
        address = f"127.0.0.1:{_free_port()}"
        for number in range(self._count):
            launcher = {ADDRESSES: address, COUNT: str(self._count), NUMBER: str(number)}
            process = Program[str](
                [*self._command, *self._own.get(number, ())],
                env=self._environment | launcher,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.processes.append(self._held.enter_context(process))
            self._held.callback(process.kill)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, traceback)

    def until(self, start: str) -> str:
        """Returns what process 0 prints up to a line that starts so."""
        stdout = self.processes[0].stdout
        assert stdout is not None
        printed = ""
        for line in stdout:
            printed += line
            if line.startswith(start):
                return printed
        raise AssertionError(f"process 0 ended without {start!r}: {printed}")

    def ended(self) -> list[tuple[int, str, str]]:
        """Returns status, output and errors of each, once all have ended."""
        results = []
        for process in self.processes:
            output, errors = process.communicate(timeout=WAIT_S)
            results.append((process.returncode, output, errors))
        return results


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
