"""Measures how much depends on which worker a connection is with: the least and the most of many.

    python -m benchmarks.serving.evenness --models models --model mnist
    python -m benchmarks.serving.evenness --against v0.1.0

The kernel gives each connection to some worker, for its whole life. Each round makes the load
generator's connections anew, so that they are spread anew; and once more over a single connection,
which is the worst way to be spread. Servers take turns; answers are checked after every
measurement. Against a revision, its server as it was then is measured beside today's.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    add_run_options,
    add_server_options,
    execute,
    new_parser,
    tell,
    whole,
)
from benchmarks.harness.meter import Meter, Subject, choose_driver, interleaved, reported, running
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.revisions import Source, checked_out
from benchmarks.harness.servers import server_of
from benchmarks.harness.table import Cell, Measurement, grid

_PACKAGES = ("convserve", "onnxruntime", "pygrpc-native")
_CELLS = (Cell(4, 64), Cell(256, 1))
_WARM_UP, _WARM_UP_S = Cell(16, 1), 0.5


@dataclass(frozen=True)
class Spread:
    """One server under one kind of load, over connections that were made for it.

    Attributes:
        connections: how many there were.
        measured: calls/s, and the rest.
    """

    connections: int
    measured: Measurement


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.evenness", __doc__)
    add_server_options(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--workers", type=whole(2), default=2, metavar="N", help="of the servers [default: 2]"
    )
    result.add_argument(
        "--against", metavar="REV", help="measure beside this revision of ours, as git names it"
    )
    add_run_options(result, rounds=20, measured="server, load and number of connections")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, Bundle.newest, choose_driver and checked_out.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    questions = Questions.of_pixels(bundle, max(cell.images for cell in _CELLS))
    flags = f"--workers {arguments.workers} {arguments.flags}".strip()
    servers = [server_of(source, "native", bundle.file, flags) for source in _sources(arguments)]
    subjects = [Subject(server, questions) for server in servers]
    with running(subjects):
        spreads = _measure(meter, subjects, arguments.rounds)
    on = machine(_PACKAGES)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), _table(spreads, servers), sep="\n\n")
    write_json(arguments.json, on, about, spreads=spreads)


def _sources(arguments: argparse.Namespace) -> list[Source]:
    today = Source.today()
    return [today] if arguments.against is None else [checked_out(arguments.against), today]


def _measure(meter: Meter, subjects: Sequence[Subject], rounds: int) -> list[Spread]:
    for subject in subjects:
        with reported(subject.server, ", before any load"):
            subject.questions.check(subject.server.address)
        Meter(meter.driver, meter.connections, _WARM_UP_S).measure(subject, _WARM_UP, 0)
    spreads = []
    meters = (meter, Meter(meter.driver, 1, meter.seconds))
    for round_, cell, subject in interleaved(subjects, _CELLS, rounds):
        for each in meters:
            one = each.measure(subject, cell, round_)
            spreads.append(Spread(each.connections, one))
            tell(f"round {round_}, {cell}, {each.connections} connections: {one.calls_per_s:.0f}/s")
    return spreads


def _table(spreads: Sequence[Spread], servers: Sequence[ServerProcess]) -> str:
    lines = []
    for cell in _CELLS:
        for connections in dict.fromkeys(spread.connections for spread in spreads):
            for server in servers:
                group = [
                    one.measured
                    for one in spreads
                    if (one.connections, one.measured.server, one.measured.cell)
                    == (connections, server.name, cell)
                ]
                lines.append(_line(cell, connections, group))
    header = (
        "callers", "images a call", "connections", "server",
        "calls/s, least, median, most", "least of most", "server CPU µs a call, median",
    )  # fmt: skip
    return grid(header, lines, {"server"})


def _line(cell: Cell, connections: int, group: Sequence[Measurement]) -> tuple[str, ...]:
    rates = [one.calls_per_s for one in group]
    return (
        f"{cell.callers}",
        f"{cell.images}",
        f"{connections}",
        group[0].server,
        f"{min(rates):.0f}, {statistics.median(rates):.0f}, {max(rates):.0f}",
        f"{min(rates) / max(rates):.2f}",
        f"{statistics.median(one.cpu_us_a_call for one in group):.0f}",
    )


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
