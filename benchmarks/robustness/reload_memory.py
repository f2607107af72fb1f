"""Measures the memory of a server over rounds in which a new version replaces the one before it.

    python -m benchmarks.robustness.reload_memory --models models
    python -m benchmarks.robustness.reload_memory --models models --against v0.1.0

Every round publishes the newest version of each model under the next number, waits until all
workers answer with it, asks each model once on each worker, and removes the version before it.
Memory is that of all processes of the server (PSS: a page of n processes counts 1/n).
"""

import argparse
import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_models_option,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.memory import proportional_bytes
from benchmarks.harness.meter import reported
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import FRONTS, server_of
from benchmarks.harness.table import grid
from convserve import Client
from convserve_bundle.folder import list_bundles

_PACKAGES = ("convserve", "onnxruntime", "pygrpc-native")
_MIB = 2**20
#: Until all workers answer with a version, s.
_SWITCH_S = 60.0
#: Connections that must see a version one after the other: so many reach each of two workers but
#: once in 500 times.
_CONNECTIONS = 10
#: The round against which the last one is compared: the first ones fill what is kept.
_FIRST = 5
_WORKERS = 2


@dataclass(frozen=True)
class Round:
    """Memory after one round.

    Attributes:
        server: its name.
        round: from 1.
        pss_mib: of all processes.
    """

    server: str
    round: int
    pss_mib: float


class Publisher:
    """A models folder in which each model has one version, that of the round.

    Args:
        folder: an empty one.
        sources: the model file of each model.
    """

    def __init__(self, folder: Path, sources: list[Bundle]) -> None:
        self._folder = folder
        self._sources = sources
        self._version = 0

    def publish(self) -> int:
        """Adds the next version of each model by rename; returns its number."""
        self._version += 1
        for source in self._sources:
            made = self._folder / source.model / f".{self._version}"
            shutil.copytree(source.file.parent, made)
            made.rename(made.with_name(str(self._version)))
        return self._version

    def remove_older(self) -> None:
        """Removes all versions but the last."""
        for source in self._sources:
            for folder in (self._folder / source.model).iterdir():
                if folder.name != str(self._version):
                    shutil.rmtree(folder)


def wait_for(address: str, version: int, sources: list[Bundle]) -> None:
    """Waits until each of many new connections is answered by a version of every model.

    Raises:
        BenchmarkError: if that takes too long.
    """
    end = time.monotonic() + _SWITCH_S
    seen = 0
    while seen < _CONNECTIONS:
        with Client(address, timeout=_SWITCH_S, wait_for_ready=True) as client:
            newest: dict[str, int] = {}
            for model in client.models():
                newest[model.name] = max(model.version, newest.get(model.name, 0))
            good = all(newest.get(source.model) == version for source in sources)
            for source in sources if good else ():
                client.classify(np.zeros((8, *source.shape), np.uint8), model=source.model)
        seen = seen + 1 if good else 0
        if time.monotonic() > end:
            raise BenchmarkError(f"version {version} is not served after {_SWITCH_S:g} s: {newest}")


def rounds_of(
    server: ServerProcess, publisher: Publisher, sources: list[Bundle], count: int
) -> Iterator[Round]:
    """Yields the memory after each round."""
    for number in range(1, count + 1):
        version = publisher.publish()
        wait_for(server.address, version, sources)
        publisher.remove_older()
        yield Round(server.name, number, sum(proportional_bytes(server.root())) / _MIB)


def print_table(rounds: list[Round]) -> None:
    """Prints memory after some of the rounds, and how much the last one has more than the fifth."""
    shown = sorted({1, _FIRST, *range(10, len(rounds) + 1, 10), max(one.round for one in rounds)})
    rows = []
    for name, group in itertools.groupby(rounds, key=lambda one: one.server):
        by_round = {one.round: one.pss_mib for one in group}
        growth = by_round[max(by_round)] / by_round[min(_FIRST, max(by_round))]
        cells = [f"{by_round[number]:.0f}" for number in shown if number in by_round]
        rows.append((name, *cells, f"{growth:.3f}"))
    header = ("server", *(f"MiB after {n}" for n in shown), f"last to round {_FIRST}")
    print(grid(header, rows, {"server"}))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("benchmarks.robustness.reload_memory", __doc__ or "")
    add_models_option(parser)
    parser.add_argument(
        "--rounds", type=whole(1), default=50, metavar="N", help="of each server [default: 50]"
    )
    parser.add_argument(
        "--fronts", nargs="+", choices=FRONTS, default=["native"], help="[default: native]"
    )
    parser.add_argument(
        "--against", nargs="*", default=[], metavar="REVISION", help="of this repository, as well"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Measures each front."""
    names = sorted(list_bundles(arguments.models).bundles)
    sources = [Bundle.newest(arguments.models, name) for name in names]
    rounds: list[Round] = []
    checkouts = [Source.today(), *map(checked_out, arguments.against)]
    for source, front in itertools.product(checkouts, arguments.fronts):
        with TemporaryDirectory() as folder:
            publisher = Publisher(Path(folder), sources)
            publisher.publish()
            bundle = Path(folder) / sources[0].model / "1" / "model.onnx"
            server = server_of(source, front, bundle, f"--workers {_WORKERS} --scan-s 0.1")
            with reported(server, " over the rounds"), server:
                for one in rounds_of(server, publisher, sources, arguments.rounds):
                    tell(f"{one.server}: round {one.round}, {one.pss_mib:.0f} MiB")
                    rounds.append(one)
    on = machine(_PACKAGES)
    details = (f"{_WORKERS} workers", f"PSS, MiB, {', '.join(names)}")
    print(heading(on, "server and clients together", details), end="\n\n")
    print_table(rounds)
    if arguments.json:
        write_json(arguments.json, on, {"rounds": arguments.rounds}, memory=rounds)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
