"""The servers that are compared, on the CPU, not started."""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import ServerProcess

BASELINE = "naive"
FRONTS = ("grpcio", "native")


def naive(bundle: Path, name: str = BASELINE, flags: Sequence[str] = ()) -> ServerProcess:
    """The server that one would write first.

    Args:
        bundle: the model file.
        name: for the table.
        flags: of naive_server.py.
    """
    command = [sys.executable, "-m", "benchmarks.naive_server", str(bundle), *flags]
    return ServerProcess(name, command)


def ours(bundle: Path, flags: str = "") -> list[ServerProcess]:
    """Convserve with each front, otherwise as it comes.

    Args:
        bundle: the model file.
        flags: more flags of convserve-serve.
    """
    command = [sys.executable, "-m", "convserve_server.main", "--models", str(bundle.parents[2])]
    command += ["--port", "0", "--device", "cpu", "--log-format", "json", *flags.split()]
    return [
        ServerProcess(f"convserve, {front} {flags}".strip(), [*command, "--front", front])
        for front in FRONTS
    ]
