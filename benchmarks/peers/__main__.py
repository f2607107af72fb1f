"""Measures Convserve beside what else would serve the same ONNX file.

    python -m benchmarks.peers
    python -m benchmarks.peers --only naive,convserve,mlserver --rounds 5
    python -m benchmarks.peers --tritonserver /opt/tritonserver

Each peer has an environment of its own, made on first use from its pinned requirements; Triton is
taken from a folder, as NVIDIA's container has it. Servers are up one at a time, started anew in
every round, in each round another one first; all are asked about the same pixels and checked with a
real client before and after every measurement. One that cannot be had is a row that says so; one
that fails is such a row too, and the status is 1. The tables go to standard output as Markdown,
progress to standard error.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.client import WireQuestions
from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    add_server_options,
    execute,
    new_parser,
    tell,
)
from benchmarks.harness.meter import Meter, choose_driver, rotated
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import CELLS
from benchmarks.peers.environments import Environment, NotInstalled, pinned
from benchmarks.peers.measurement import Record, measure_server
from benchmarks.peers.registry import CHOICES, Peer, peers
from benchmarks.peers.tables import figures, refusals

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "protobuf", "pygrpc-native")


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.peers", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--only", type=_choices, default=list(CHOICES), metavar="NAME,...",
        help=f"some of {', '.join(CHOICES)} [default: all]",
    )  # fmt: skip
    result.add_argument(
        "--environments", type=Path, default=Path(".peers"), metavar="DIR",
        help="where the peers' environments are, or will be [default: .peers]",
    )  # fmt: skip
    result.add_argument(
        "--tritonserver", type=_tritonserver, metavar="DIR",
        help="folder of Triton, with the backend of ONNX Runtime [default: Triton is left out]",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="server and cell")
    return result


def _choices(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in CHOICES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(CHOICES)}")
    return names


def _tritonserver(text: str) -> Path:
    folder = Path(text)
    for part in ("bin/tritonserver", "backends/onnxruntime"):
        if not (folder / part).exists():
            raise argparse.ArgumentTypeError(f"expected a folder with {part}, got {text}")
    return folder


def _interpreter(peer: Peer, folder: Path, record: Record) -> Path:
    """Its interpreter, and its environment made; if that fails, the record says why."""
    if peer.absent:
        tell(f"{peer.name} is left out: {peer.absent}")
        record.failure = f"left out: {peer.absent}"
    if peer.requirements is None:
        return Path(sys.executable)
    environment = Environment(folder.absolute() / peer.choice, peer.requirements)
    try:
        environment.make()
    except NotInstalled as error:
        tell(f"{peer.name} is not installed: {error}")
        record.failure = f"not installed: {error}"
    return environment.python


def run(arguments: argparse.Namespace) -> None:
    """Make the environments, measure, print.

    Raises:
        BenchmarkError: see Bundle.newest and choose_driver; after the tables, if a server failed.
    """
    with tempfile.TemporaryDirectory(prefix="convserve-peers-") as folder:
        found = Bundle.newest(arguments.models, arguments.model)
        # By itself, for ours serves all that are in a folder.
        alone = Path(folder, found.model, str(found.version))
        shutil.copytree(found.file.parent, alone)
        _run(arguments, Bundle(alone / found.file.name))


def _run(arguments: argparse.Namespace, bundle: Bundle) -> None:
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    contest = [
        (peer, Record(peer.name, peer.wire_format.title))
        for peer in peers(bundle, arguments.flags, arguments.tritonserver)
        if peer.choice in arguments.only
    ]
    pythons = {
        peer.name: _interpreter(peer, arguments.environments, record) for peer, record in contest
    }
    load_before = os.getloadavg()[0]
    asked = Questions.of_pixels(bundle, max(cell.images for cell in CELLS))
    failed = []
    for round_ in range(arguments.rounds):
        for peer, record in rotated(contest, round_):
            if record.failure:
                continue
            try:
                with tempfile.TemporaryDirectory(prefix="peer-") as scratch:
                    server = peer.server(
                        pythons[peer.name], bundle.file, Path(scratch), arguments.flags
                    )
                    measure_server(
                        meter, server, WireQuestions.of(peer.wire_format, asked), CELLS, record
                    )
            except BenchmarkError as error:
                tell(str(error))
                record.failure = str(error).partition("\n")[0]
                failed.append(peer.name)
    about = meter.about(bundle, arguments.rounds)
    # Of the last minute; before: what else ran, after: with the servers and the calls.
    about["load_average"] = [load_before, os.getloadavg()[0]]
    _print(arguments, about, contest)
    if failed:
        raise BenchmarkError(f"failed: {', '.join(failed)}; the reasons are above")


def _print(
    arguments: argparse.Namespace, about: dict[str, Any], contest: Sequence[tuple[Peer, Record]]
) -> None:
    """The heading with all versions, both tables, and JSON if it is asked for."""
    on = machine(_PACKAGES)
    for peer, _ in contest:
        if peer.requirements is not None:
            on[peer.choice] = pinned(peer.requirements)[peer.choice]
    if arguments.tritonserver and (stated := arguments.tritonserver / "TRITON_VERSION").exists():
        on["triton"] = stated.read_text().strip()
    details = (
        about["model"],
        f"{about['driver']}, with gRPC over at most {about['connections']} connections, "
        "with HTTP/1.1 one for each caller",
        "servers one at a time",
        f"rounds x seconds: {about['rounds']} x {about['seconds']:g}",
        "load average before {:.1f}, after {:.1f}".format(*about["load_average"]),
    )
    records = [record for _, record in contest]
    print(
        heading(on, "server and load together", details), figures(records), refusals(records),
        sep="\n\n",
    )  # fmt: skip
    write_json(arguments.json, on, about, servers=records)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
