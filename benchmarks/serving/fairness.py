"""Measures what a caller with single images waits while others send many a call.

    python -m benchmarks.serving.fairness --models models --model mnist

One caller asks about one image after another, alone at first, then beside callers with a
connection each that keep calls of many images in flight. Its latency is what counts. Servers take
turns; the answers are checked at first and at the end.
"""

import argparse
import statistics
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

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
from benchmarks.harness.load import Load, LoadError, OwnDriver
from benchmarks.harness.meter import Meter, Subject, choose_driver, reported, rotated, running
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import naive, ours
from benchmarks.harness.table import Cell, grid

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "protobuf", "pygrpc-native")
_SINGLE = Cell(1, 1)
#: The lone caller stops first, so that all it measured was beside the others.
_AFTER_S = 0.5


@dataclass(frozen=True)
class Wait:
    """What the lone caller met at one server in one round."""

    server: str
    round: int
    others: int
    images: int
    p50_ms: float
    p99_ms: float
    calls: int


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.fairness", __doc__)
    add_server_options(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--others", type=whole(1), default=4, metavar="N", help="callers of many [default: 4]"
    )
    result.add_argument(
        "--images", type=whole(2), default=256, metavar="N", help="in their calls [default: 256]"
    )
    add_run_options(result, rounds=3, measured="server")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: if a call failed or an answer was wrong.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    meter = Meter(choose_driver(arguments.driver), arguments.others, arguments.seconds)
    questions = Questions.of_pixels(bundle, arguments.images)
    # With one worker all callers share an engine, which is what this is about.
    servers: list[ServerProcess] = [naive(bundle.file), *ours(bundle.file, "--workers 1")]
    subjects = [Subject(server, questions) for server in servers]
    many = Cell(arguments.others, arguments.images)
    waits: list[Wait] = []
    with running(subjects):
        for subject in subjects:
            with reported(subject.server, ", before any load"):
                questions.check(subject.server.address)
        for round_ in range(arguments.rounds):
            for subject in rotated(subjects, round_):
                for cell in (None, many):
                    waits.append(_measure(meter, subject, cell, round_))
                    tell(f"{waits[-1]}")
    on = machine(_PACKAGES)
    about = meter.about(bundle, arguments.rounds)
    print(heading_of_load(on, about), _table(waits, servers), sep="\n\n")
    write_json(arguments.json, on, about, waits=waits)


def _measure(meter: Meter, subject: Subject, many: Cell | None, round_: int) -> Wait:
    """The lone caller at one server, beside others or alone."""
    failures: list[LoadError] = []

    def hog(cell: Cell) -> None:
        longer = Meter(meter.driver, meter.connections, meter.seconds + _AFTER_S)
        try:
            longer.driver.run(longer.task(subject, cell, round_))
        except LoadError as error:
            failures.append(error)

    with ExitStack() as stack, reported(subject.server, ", beside others"):
        if many is not None:
            others = threading.Thread(target=hog, args=(many,))
            others.start()
            stack.callback(others.join)
        load: Load = OwnDriver().run(meter.task(subject, _SINGLE, round_))
        stack.close()
        if failures:
            raise failures[0]
        subject.questions.check(subject.server.address)
    p50, p99 = np.percentile(load.latencies_ms, (50, 99)).tolist()
    return Wait(
        server=subject.server.name,
        round=round_,
        others=many.callers if many else 0,
        images=many.images if many else 0,
        p50_ms=p50,
        p99_ms=p99,
        calls=len(load.latencies_ms),
    )


def _table(waits: Sequence[Wait], servers: Sequence[ServerProcess]) -> str:
    lines = []
    for server in servers:
        alone, beside = (
            [wait for wait in waits if wait.server == server.name and bool(wait.others) is busy]
            for busy in (False, True)
        )
        p50s = [statistics.median(wait.p50_ms for wait in group) for group in (alone, beside)]
        p99s = [statistics.median(wait.p99_ms for wait in group) for group in (alone, beside)]
        lines.append(
            (
                server.name, f"{p50s[0]:.2f}", f"{p99s[0]:.2f}", f"{p50s[1]:.2f}", f"{p99s[1]:.2f}",
            )
        )  # fmt: skip
    header = ("server", "p50 ms alone", "p99 ms alone", "p50 ms beside", "p99 ms beside")
    return grid(header, lines, {"server"})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
