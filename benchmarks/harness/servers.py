"""The servers that are compared, on the CPU, not started."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.revisions import Source

BASELINE = "naive"
FRONTS = ("grpcio", "native")


def naive(bundle: Path, name: str = BASELINE, flags: Sequence[str] = ()) -> ServerProcess:
    """The server that one would write first.

    Args:
        bundle: the model file.
        name: for the table.
        flags: of naive_server.py.
    """
    command = [sys.executable, "-m", "benchmarks.harness.naive_server", str(bundle), *flags]
    return ServerProcess(name, command)


def ours(bundle: Path, flags: str = "") -> list[ServerProcess]:
    """Convserve with each front, otherwise with its defaults.

    Args:
        bundle: the model file.
        flags: more flags of convserve-serve.
    """
    command = [sys.executable, *_command(bundle, flags)]
    return [
        ServerProcess(f"convserve, {front} {flags}".strip(), [*command, "--front", front])
        for front in FRONTS
    ]


def server_of(
    source: Source,
    front: str,
    bundle: Path,
    flags: str = "",
    again: str = "",
    *,
    before: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> ServerProcess:
    """Convserve as it is in a checkout.

    Args:
        source: the checkout.
        front: one of FRONTS.
        bundle: the model file.
        flags: more flags of its convserve-serve.
        again: what tells this server from another one of the same checkout.
        before: the command that starts it, as taskset.
        environ: its environment beside ours; None: that of the checkout.
    """
    command = [*before, str(source.python), *_command(bundle.resolve(), flags), "--front", front]
    name = f"{front} {flags}".strip()
    return ServerProcess(
        f"{name}, {source.name}{again}", command, environ or source.environ, source.tree
    )


def _command(bundle: Path, flags: str) -> list[str]:
    command = ["-m", "convserve_server.main", "--models", str(bundle.parents[2])]
    return [*command, "--port", "0", "--device", "cpu", "--log-format", "json", *flags.split()]
