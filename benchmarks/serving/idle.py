"""Measures what a server costs before anybody asks: its start, its memory, its idle processor time.

    python -m benchmarks.serving.idle --models models --model mnist
    python -m benchmarks.serving.idle --copies 50 --against main

From the command to the port that it names, which comes when every worker serves; then the memory of
all its processes, shared pages divided by those who share them, and their processor time while
nobody asks.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_models_option,
    add_run_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.memory import proportional_bytes
from benchmarks.harness.meter import reported, rotated
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import FRONTS, naive, ours, server_of
from benchmarks.harness.table import grid

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "pygrpc-native")
_MIB = 2**20


@dataclass(frozen=True)
class Idle:
    """One start.

    Attributes:
        server: its name.
        start_s: from the command to serving.
        processes: of the server, the one above them included.
        mib: proportional set size of all, MiB.
        largest_mib: that of the largest process.
        cpu_share: processor time while nobody asks, in CPUs.
    """

    server: str
    start_s: float
    processes: int
    mib: float
    largest_mib: float
    cpu_share: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.idle", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--seconds", type=whole(1), default=10, metavar="S", help="of idling [default: 10]"
    )
    result.add_argument("--flags", default="", metavar="FLAGS", help="more for convserve-serve")
    result.add_argument(
        "--copies", type=whole(1), metavar="N",
        help="ours serve so many models alike [default: the folder as it is]",
    )  # fmt: skip
    result.add_argument(
        "--against", metavar="REV",
        help="measure this revision of ours, as git names it, instead of a naive server",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="server")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Start each server in turn, measure, stop it; print.

    Raises:
        BenchmarkError: with its output, if one does not start.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    measured: list[Idle] = []
    with _served(bundle, arguments.copies) as file:
        for round_ in range(arguments.rounds):
            servers = _servers(file, arguments.flags, arguments.against)
            for server in rotated(servers, round_):
                measured.append(_measure(server, arguments.seconds))
                tell(f"round {round_ + 1}: {measured[-1]}")
        models = sum(1 for _ in file.parents[2].glob("*/[0-9]*/model.onnx"))
    on = machine(_PACKAGES)
    details = (f"{models} models loaded by ours", f"rounds: {arguments.rounds}")
    print(heading(on, "everything", details), _table(measured, servers), sep="\n\n")
    write_json(arguments.json, on, {"seconds": arguments.seconds}, idle=measured)


@contextmanager
def _served(bundle: Bundle, copies: int | None) -> Iterator[Path]:
    """A model file of the folder that ours are to serve."""
    if copies is None:
        yield bundle.file
        return
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        for number in range(copies):
            file = Path(folder, f"{bundle.model}-{number}", "1", bundle.file.name)
            file.parent.mkdir(parents=True)
            file.write_bytes(bundle.file.read_bytes())
        yield file


def _servers(file: Path, flags: str, against: str | None) -> list[ServerProcess]:
    if against is None:
        return [naive(file), *ours(file, flags)]
    sources = (checked_out(against), Source.today())
    return [server_of(source, front, file, flags) for front in FRONTS for source in sources]


def _measure(server: ServerProcess, seconds: float) -> Idle:
    started = time.monotonic()
    with reported(server, ", starting"), server:
        start_s = time.monotonic() - started
        memory = proportional_bytes(server.root())
        before, began = server.cpu_s(), time.monotonic()
        # Nothing to wait for: nothing is what is measured.
        time.sleep(seconds)
        cpu_share = (server.cpu_s() - before) / (time.monotonic() - began)
    return Idle(
        server=server.name,
        start_s=start_s,
        processes=len(memory),
        mib=sum(memory) / _MIB,
        largest_mib=max(memory) / _MIB,
        cpu_share=cpu_share,
    )


def _table(measured: Sequence[Idle], servers: Sequence[ServerProcess]) -> str:
    lines = []
    for server in servers:
        group = [one for one in measured if one.server == server.name]
        lines.append(
            (
                server.name,
                f"{statistics.median(one.start_s for one in group):.2f}",
                f"{group[0].processes}",
                f"{statistics.median(one.mib for one in group):.0f}",
                f"{statistics.median(one.largest_mib for one in group):.0f}",
                f"{100 * statistics.median(one.cpu_share for one in group):.2f}",
            )
        )
    header = (
        "server", "start s", "processes", "MiB of all", "MiB of the largest", "idle, % of a CPU",
    )  # fmt: skip
    return grid(header, lines, {"server"})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
