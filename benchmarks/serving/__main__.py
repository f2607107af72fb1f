"""Measures the server beside a naive one: calls/s, latency and processor time a call.

    python -m benchmarks.serving --models models --model mnist
    python -m benchmarks.serving --against v0.1.0

Against a revision, its server as it was then takes the naive one's part, each front beside the same
one of today. It is there twice: how far it is from itself is what chance does.

All servers are up all the time and take turns; each round begins with another one. Their answers
are checked with a real client at first and after every measurement. The table goes to standard
output as Markdown, progress to standard error.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import add_run_options, add_server_options, execute, new_parser
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import FRONTS, naive, ours, server_of
from benchmarks.harness.table import CELLS, markdown, rows

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "protobuf", "pygrpc-native")


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving", __doc__)
    add_server_options(result)
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--against", metavar="REV",
        help="measure beside this revision of ours, as git names it, instead of a naive server",
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


def against(source: Source, bundle: Path, flags: str = "") -> list[list[ServerProcess]]:
    """For each front, a revision, the same again, and what is here today; not started.

    Args:
        source: the revision.
        bundle: the model file.
        flags: more flags for all of them.
    """
    today = Source.today()
    return [
        [
            server_of(source, front, bundle, flags),
            server_of(source, front, bundle, flags, again=", again"),
            server_of(today, front, bundle, flags),
        ]
        for front in FRONTS
    ]


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest, choose_driver and checked_out.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    on = machine(_PACKAGES)
    questions = Questions.of_pixels(bundle, max(cell.images for cell in CELLS))
    if arguments.against is None:
        groups = [servers(bundle.file, arguments.flags)]
    else:
        groups = against(checked_out(arguments.against), bundle.file, arguments.flags)
    subjects = [Subject(server, questions) for group in groups for server in group]
    with running(subjects):
        measured = list(measurements(meter, subjects, CELLS, arguments.rounds))
    table = []
    for group in groups:
        names = {server.name for server in group}
        table += rows([one for one in measured if one.server in names], group[0].name)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), markdown(table), sep="\n\n")
    write_json(arguments.json, on, about, measurements=measured, rows=table)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
