"""Measures a server with its models on a stand-in for S3 beside one with the same in a folder.

    python -m benchmarks.serving.object_storage
    python -m benchmarks.serving.object_storage --mib 100 --rounds 3

It needs the packages of `make test-store`: run it with .venv-store/bin/python. The stand-in is on
this machine, so its network costs nothing; what is measured is what the copying adds. Each round
publishes a version, and waits until a client is answered by it. Memory is resident memory;
processor time is that of the process that copies while nothing is new.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf import json_format

from benchmarks.harness.command import BenchmarkError, add_run_options, execute, new_parser, whole
from benchmarks.harness.processes import ServerProcess, process_tree
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from convserve import Client
from convserve_bundle import publish as folders
from convserve_bundle.contract import MANIFEST_KEY
from convserve_host.memory import resident_bytes
from convserve_store.bundles import BundleStore
from convserve_store.location import open_location
from tests.bundles import digit_of, manifest, model

_MIB = 2**20
_POLL_S = 1.0
#: Questions to the store during which processor time is counted.
_QUESTIONS = 20
_SERVED_S = 120.0


@dataclass(frozen=True)
class Row:
    """What was measured of one server.

    Attributes:
        server: folder or object storage.
        start_s: from its start until it is ready, s.
        publish_s: to publish a version, median, s.
        served_s: from then until it answers, median, s.
        supervisor_mib: memory of the supervisor.
        copier_mib: memory of the process that copies; 0 where there is none.
        question_ms: processor time of that process for each question, ms.
    """

    server: str
    start_s: float
    publish_s: float
    served_s: float
    supervisor_mib: float
    copier_mib: float
    question_ms: float


def _measure(name: str, models: str, publish: Callable[[], object], rounds: int) -> Row:
    command = [
        *(sys.executable, "-I", "-m", "convserve_server.main", "--models", models, "--port", "0"),
        *("--log-format", "json", "--workers", "1", "--scan-s", "0.1", "--poll-s", f"{_POLL_S:g}"),
    ]
    publish()
    began = time.monotonic()
    published, served = [], []
    with ServerProcess(name, command) as server, Client(server.address) as client:
        start_s = time.monotonic() - began
        for version in range(2, rounds + 2):
            began = time.monotonic()
            publish()
            published.append(time.monotonic() - began)
            began = time.monotonic()
            while client.classify(digit_of(0)).version != version:
                if time.monotonic() - began > _SERVED_S:
                    raise BenchmarkError(f"version {version} is not served")
                time.sleep(0.01)
            served.append(time.monotonic() - began)
        copier = _copier(server.root())
        question_s = 0.0
        if copier:
            before = process_tree(copier)[copier]
            time.sleep(_QUESTIONS * _POLL_S)
            question_s = (process_tree(copier)[copier] - before) / _QUESTIONS
        return Row(
            name,
            start_s,
            statistics.median(published),
            statistics.median(served),
            resident_bytes(server.root()) / _MIB,
            resident_bytes(copier) / _MIB if copier else 0.0,
            question_s * 1000,
        )


def _copier(root: int) -> int:
    """Returns the process that copies models; 0 if there is none."""
    for pid in process_tree(root):
        if b"mirror_host" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Measures both servers and prints a table.

    Raises:
        BenchmarkError: The stand-in is not installed, or a version is not served.
    """
    try:
        from tests.store.stand_in import BUCKET, StandIn
    except ModuleNotFoundError as error:
        raise BenchmarkError(
            f"{error.name} is not installed; run make test-store once, and this with "
            ".venv-store/bin/python"
        ) from error
    content = model({MANIFEST_KEY: json_format.MessageToJson(manifest())}).SerializeToString()
    extra = {"net.keras": os.urandom(arguments.mib * _MIB)}
    stand_in = StandIn()
    os.environ.update(stand_in.environment)
    try:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            store = BundleStore(open_location(f"s3://{BUCKET}/models", "models"))
            store.where.filesystem.mkdir(BUCKET)
            rows = [
                _measure(
                    "folder",
                    str(folder),
                    lambda: folders.publish(content, folder, "mnist", None, None, extra),
                    arguments.rounds,
                ),
                _measure(
                    "object storage",
                    store.where.url,
                    lambda: store.publish(content, "mnist", None, None, extra),
                    arguments.rounds,
                ),
            ]
    finally:
        stand_in.stop()
    on = machine(["convserve", "s3fs", "moto"])
    load = f"load average {os.getloadavg()[0]:.1f}"
    details = (f"versions of {arguments.mib} MiB", f"poll_s {_POLL_S:g}", load)
    print(heading(on, "the server and the stand-in together", details), end="\n\n")
    print(_table(rows))
    write_json(arguments.json, on, {"mib": arguments.mib}, rows=rows)


def _table(rows: list[Row]) -> str:
    header = (
        *("models", "ready after s", "publish s", "then served after s", "supervisor MiB"),
        *("copier MiB", "copier CPU ms a question"),
    )
    lines = [
        (
            *(one.server, f"{one.start_s:.1f}", f"{one.publish_s:.2f}", f"{one.served_s:.2f}"),
            *(f"{one.supervisor_mib:.0f}", f"{one.copier_mib:.0f}" if one.copier_mib else "-"),
            f"{one.question_ms:.1f}" if one.copier_mib else "-",
        )
        for one in rows
    ]
    return grid(header, lines, {"models"})


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("benchmarks.serving.object_storage", __doc__ or "")
    parser.add_argument(
        *("--mib",),
        type=whole(1),
        default=14,
        metavar="MIB",
        help="size of each version [default: 14, as of the net for photographs]",
    )
    add_run_options(parser, 5, "server")
    return parser


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
