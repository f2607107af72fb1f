"""Measures the server on a GPU, driven by several processes of convserve bench.

    python -m benchmarks.gpu.serving --models models --model mnist --workers 1,2,4,8

Each process of the load gets its share of the callers. Models of photographs are sent JPEGs.
The answers are checked with a real client before and after each server's turn.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.gpu.engine import device_name
from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_models_option,
    add_run_options,
    execute,
    new_parser,
    numbers,
    tell,
    whole,
)
from benchmarks.harness.meter import reported
from benchmarks.harness.multi_process_load import drive
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import Cell, grid
from convserve_protos.bundle_pb2 import IMAGE_KIND_PHOTO

_DIGITS = (Cell(1, 1), Cell(64, 1), Cell(512, 1), Cell(64, 64), Cell(16, 256))
_PHOTOS = (Cell(1, 1), Cell(64, 1), Cell(256, 1), Cell(64, 16))

_PACKAGES = ("convserve", "grpcio", "protobuf", "pygrpc-native")
_RUNTIMES = {"cuda": "onnxruntime-gpu", "cpu": "onnxruntime"}


@dataclass(frozen=True)
class Found:
    """One server under one kind of load, once."""

    workers: int
    cell: Cell
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_us_a_call: float
    generator_cpus: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.gpu.serving", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--workers", type=numbers, default=[1, 2, 4, 8], metavar="N,...",
        help="processes of the server, measured one after another [default: 1,2,4,8]",
    )  # fmt: skip
    result.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="[default: cuda]")
    result.add_argument(
        "--generators", type=whole(1), default=6, metavar="N",
        help="most processes that make load [default: 6]",
    )  # fmt: skip
    result.add_argument("--pictures", metavar="DIR", help="of JPEGs [default: made-up scenes]")
    result.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="of a measurement [default: 2]"
    )
    result.add_argument("--flags", default="", metavar="FLAGS", help="more for convserve-serve")
    add_run_options(result, rounds=2, measured="server and cell")
    return result


def _server(arguments: argparse.Namespace, bundle: Bundle, workers: int) -> ServerProcess:
    command = [sys.executable, "-m", "convserve_server.main", "--log-format", "json"]
    command += ["--models", str(bundle.file.parents[2]), "--port", "0"]
    command += ["--device", arguments.device, "--workers", f"{workers}", *arguments.flags.split()]
    return ServerProcess(f"{workers} workers", command)


def _measured(arguments: argparse.Namespace, bundle: Bundle) -> Iterator[Found]:
    photos = bundle.manifest.input.kind == IMAGE_KIND_PHOTO
    flags = ["--model", bundle.model]
    if photos and arguments.pictures:
        flags += ["--pictures", arguments.pictures]
    questions = Questions.of_pixels(bundle, 64)
    for round_ in range(arguments.rounds):
        for workers in arguments.workers:
            server = _server(arguments, bundle, workers)
            with reported(server, ""), server:
                questions.check(server.address)
                for cell in _PHOTOS if photos else _DIGITS:
                    before_s = server.cpu_s()
                    load = drive(
                        server.address, arguments.generators, cell.callers, arguments.seconds,
                        [*flags, "--images", f"{cell.images}"],
                    )  # fmt: skip
                    # Of all calls, also those before and after the time that counts.
                    cpu_us = (server.cpu_s() - before_s) / load.calls * 1e6
                    tell(f"round {round_ + 1}, {workers} workers, {cell}: {load}")
                    yield Found(
                        workers, cell, load.calls_per_s, load.p50_ms, load.p99_ms, cpu_us,
                        load.generator_cpus,
                    )  # fmt: skip
                questions.check(server.address)
                loaded = [
                    line
                    for line in server.messages()
                    if "MiB are free" in line or "is served by" in line
                ]
            tell(f"{workers} workers: {loaded}")


def _table(found: Sequence[Found]) -> str:
    lines = []
    for cell in dict.fromkeys(one.cell for one in found):
        for workers in dict.fromkeys(one.workers for one in found):
            group = [one for one in found if (one.cell, one.workers) == (cell, workers)]
            rates = [one.calls_per_s for one in group]
            rate = statistics.median(rates)
            lines.append(
                (
                    f"{cell.callers}",
                    f"{cell.images}",
                    f"{workers}",
                    f"{rate:,.0f} ({min(rates):,.0f}..{max(rates):,.0f})",
                    f"{rate * cell.images:,.0f}",
                    f"{statistics.median(one.p50_ms for one in group):.2f}",
                    f"{statistics.median(one.p99_ms for one in group):.2f}",
                    f"{statistics.median(one.server_cpu_us_a_call for one in group):.0f}",
                    f"{statistics.median(one.generator_cpus for one in group):.1f}",
                )
            )
    header = ("callers", "images a call", "workers", "calls/s, median (min..max)", "images/s",
              "p50 ms", "p99 ms", "server CPU µs a call", "CPUs of the load")  # fmt: skip
    return grid(header, lines, ())


def run(arguments: argparse.Namespace) -> None:
    """Start each server in turn, measure, stop it; print.

    Raises:
        BenchmarkError: with its output, if a call failed or an answer was wrong.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    on = machine((*_PACKAGES, _RUNTIMES[arguments.device]))
    found = list(_measured(arguments, bundle))
    gpu = device_name() if arguments.device == "cuda" else "no GPU"
    about = {"model": bundle.model, "gpu": gpu, "generators": arguments.generators}
    details = (gpu, bundle.model, f"rounds x seconds: {arguments.rounds} x {arguments.seconds:g}")
    print(heading(on, "server and load together", details), _table(found), sep="\n\n")
    write_json(arguments.json, on, about, found=found)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
