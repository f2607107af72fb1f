"""Measures the server beside a naive one: calls/s, latency and processor time a call.

    python -m benchmarks.serving --models models --model mnist

All servers are up all the time and take turns; each round begins with another one. Their answers
are checked with a real client at first and after every measurement. The table goes to standard
output as Markdown, progress to standard error.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.answers import Questions
from benchmarks.bundles import Bundle
from benchmarks.command import add_run_options, add_server_options, execute, new_parser
from benchmarks.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.processes import ServerProcess
from benchmarks.report import heading_of_load, machine, write_json
from benchmarks.servers import BASELINE, naive, ours
from benchmarks.table import Cell, markdown, rows

CELLS = (Cell(1, 1), Cell(16, 1), Cell(64, 1), Cell(256, 1), Cell(4, 64))

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "protobuf", "pygrpc-native")


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="server and cell")
    return result


def servers(bundle: Path, flags: str = "") -> list[ServerProcess]:
    """The baseline and ours with each front, not started.

    Args:
        bundle: the model file.
        flags: more flags for ours.
    """
    return [naive(bundle), *ours(bundle, flags)]


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest and choose_driver.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    questions = Questions.of_pixels(bundle, max(cell.images for cell in CELLS))
    subjects = [Subject(server, questions) for server in servers(bundle.file, arguments.flags)]
    with running(subjects):
        measured = list(measurements(meter, subjects, CELLS, arguments.rounds))
    table = rows(measured, BASELINE)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), markdown(table), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
