"""Measures what the same pixels cost in each protocol: calls/s, latency and processor time a call.

    python -m benchmarks.serving.protocols --models models --model mnist

A server with each front is asked by convserve.v1.Classify, by Open Inference with bytes, and by the
same with floats, which it has to check and round. The ways take turns on the same server; each
round begins with another one. Answers are checked with a real client at first and after every
measurement. The table goes to standard output as Markdown, progress to standard error.
"""

import argparse
import sys

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.client import WireQuestions
from benchmarks.harness.command import add_run_options, add_server_options, execute, new_parser
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import FRONTS, ours
from benchmarks.harness.table import Cell, markdown, rows
from benchmarks.harness.wire_formats import ConvserveV1, OpenInference, WireFormat

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "protobuf", "pygrpc-native")
CELLS = (Cell(1, 1), Cell(64, 1), Cell(4, 64))


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.protocols", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--callers", type=int, choices=[cell.callers for cell in CELLS],
        help="measure this load alone [default: all]",
    )  # fmt: skip
    add_run_options(result, rounds=5, measured="protocol and cell")
    return result


def subjects_of(server: ServerProcess, front: str, asked: Questions) -> list[Subject]:
    """Returns the ways to ask a server, the baseline first."""
    ways: dict[str, WireFormat] = {
        "Classify": ConvserveV1(asked.model),
        "Open Inference, UINT8": OpenInference(asked.model),
        "Open Inference, FP32": OpenInference(asked.model, "FP32"),
    }
    return [
        Subject(server, WireQuestions.of(way, asked), f"{front}, {name}")
        for name, way in ways.items()
    ]


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest and choose_driver.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    cells = [cell for cell in CELLS if arguments.callers in (None, cell.callers)]
    asked = Questions.of_pixels(bundle, max(cell.images for cell in CELLS))
    groups = [
        subjects_of(server, front, asked)
        for front, server in zip(FRONTS, ours(bundle.file, arguments.flags), strict=True)
    ]
    subjects = [subject for group in groups for subject in group]
    with running(subjects):
        measured = list(measurements(meter, subjects, cells, arguments.rounds))
    table = []
    for group in groups:
        names = {subject.name for subject in group}
        table += rows([one for one in measured if one.server in names], group[0].name)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), markdown(table), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
