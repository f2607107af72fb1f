"""Measures load generators beside each other: the same server and calls, driven by each in turn.

    python -m benchmarks.serving.generators --models models

A generator that shares the processor with the server slows it by what it costs, and whatever it
adds to a latency looks like the server's. The second table has the latencies of an open loop (calls
at equal distances) at 70 % of the rate of the closed one. The tables go to standard output as
Markdown, progress to standard error.
"""

import argparse
import resource
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_run_options,
    add_server_options,
    execute,
    new_parser,
    tell,
)
from benchmarks.harness.h2load import H2loadDriver
from benchmarks.harness.load import Driver, OwnDriver, Task
from benchmarks.harness.meter import Meter, Subject, reported, rotated, running
from benchmarks.harness.multi_process_load import result_of, start
from benchmarks.harness.report import heading_of_load, machine, write_json
from benchmarks.harness.servers import FRONTS, ours
from benchmarks.harness.table import Cell, grid

CELLS = (Cell(1, 1), Cell(16, 1), Cell(64, 1))
SHARE = 0.7

_PACKAGES = ("convserve", "grpcio", "onnxruntime", "pygrpc-native")
#: Beyond the time it was asked to take.
_LATE_S = 60.0
_HEADER = ("callers", "generator", "calls/s, median (min..max)", "p50 ms", "p99 ms")
_BENCH = "convserve bench"
_CPU = "generator CPU µs a call"


@dataclass(frozen=True)
class Reading:
    """One generator under one kind of load, once."""

    generator: str
    callers: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    #: User and system time of the generator alone, for each answered call.
    cpu_us_a_call: float


class Candidate(Protocol):
    """Something that makes load, and whose processor time is known."""

    #: For the table.
    name: str

    def measure(self, task: Task) -> Reading:
        """Make the calls.

        Raises:
            LoadError: if any call failed, or none was answered.
        """


class Driven:
    """A driver of the other benchmarks.

    Args:
        name: for the table.
        driver: makes the load.
        whose: resource.RUSAGE_SELF or RUSAGE_CHILDREN, whichever it runs in.
    """

    def __init__(self, name: str, driver: Driver, whose: int) -> None:
        self.name = name
        self._driver = driver
        self._whose = whose

    def measure(self, task: Task) -> Reading:
        """See Candidate.measure."""
        before_s = self._cpu_s()
        load = self._driver.run(task)
        cpu_s = self._cpu_s() - before_s
        calls = len(load.latencies_ms)
        p50, p99 = np.percentile(load.latencies_ms, (50, 99)).tolist()
        rate = calls / load.seconds
        return Reading(self.name, task.callers, rate, p50, p99, cpu_s / calls * 1e6)

    def _cpu_s(self) -> float:
        usage = resource.getrusage(self._whose)
        return usage.ru_utime + usage.ru_stime


class Bench:
    """The command convserve bench.

    Args:
        model: that is asked.
        rate: calls a second that are due; None: a closed loop.
    """

    def __init__(self, model: str, rate: float | None = None) -> None:
        self.name = _BENCH if rate is None else f"{_BENCH} --rate {rate:g}"
        self._flags = ["--model", model, *([] if rate is None else [f"--rate={rate:g}"])]

    def measure(self, task: Task) -> Reading:
        """See Candidate.measure."""
        shape = [f"--callers={task.callers}", f"--connections={task.connections}"]
        result = result_of(start(task.address, [*self._flags, *shape], task.seconds), task.seconds)
        for warning in result["warnings"]:
            tell(f"{_BENCH}: {warning}")
        times, cpu_us = result["latency_ms"], result["generator"]["cpu_us_a_call"]
        rate = result["calls_per_s"]
        return Reading(self.name, task.callers, rate, times["p50"], times["p99"], cpu_us)


def generators(model: str) -> list[Candidate]:
    """All that there are.

    Raises:
        BenchmarkError: if h2load is not installed.
    """
    if not H2loadDriver.is_installed():
        raise BenchmarkError(
            "h2load is not installed; Debian and Ubuntu: apt install nghttp2-client"
        )
    return [
        Driven("h2load", H2loadDriver(), resource.RUSAGE_CHILDREN),
        Bench(model),
        Driven("grpc.aio", OwnDriver(), resource.RUSAGE_SELF),
    ]


def readings(
    meter: Meter, subject: Subject, candidates: Sequence[Candidate], rounds: int
) -> Iterator[Reading]:
    """Each generator in each cell in each round, each round beginning with another one.

    Raises:
        BenchmarkError: with the server's output, if a call failed or an answer was wrong.
    """
    for round_ in range(rounds):
        for cell in CELLS:
            task = meter.task(subject, cell, round_)
            for generator in rotated(candidates, round_):
                with reported(subject.server, f", {generator.name}, {cell}"):
                    one = generator.measure(task)
                    subject.questions.check(subject.server.address)
                tell(f"round {round_ + 1}, {cell}, {generator.name}: {one.calls_per_s:.0f} calls/s")
                yield one


def table(measured: Sequence[Reading]) -> str:
    """The medians of all rounds as a Markdown table."""
    lines = []
    for callers, name in dict.fromkeys((one.callers, one.generator) for one in measured):
        group = [one for one in measured if (one.callers, one.generator) == (callers, name)]
        rates = [one.calls_per_s for one in group]
        lines.append(
            (
                f"{callers}",
                name,
                f"{statistics.median(rates):.0f} ({min(rates):.0f}..{max(rates):.0f})",
                f"{statistics.median(one.p50_ms for one in group):.2f}",
                f"{statistics.median(one.p99_ms for one in group):.2f}",
                f"{statistics.median(one.cpu_us_a_call for one in group):.1f}",
            )
        )
    return grid((*_HEADER, _CPU), lines, {"generator"})


def _loops(
    meter: Meter, subject: Subject, model: str, closed: Sequence[Reading], rounds: int
) -> list[Reading]:
    """The closed loop of most callers again, and an open one at a share of its rate, in turn."""
    callers = CELLS[-1].callers
    mine = [one.calls_per_s for one in closed if one.callers == callers]
    rate = round(SHARE * statistics.median(mine))
    candidates = [Bench(model), Bench(model, rate)]
    found = []
    for round_ in range(rounds):
        task = meter.task(subject, CELLS[-1], round_)
        for generator in rotated(candidates, round_):
            with reported(subject.server, f", {generator.name}"):
                found.append(generator.measure(task))
    return found


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.generators", __doc__)
    add_server_options(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--front", choices=FRONTS, default="native", help="of the server [default: native]"
    )
    add_run_options(result, rounds=3, measured="generator and cell")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Start the server, measure, stop it, print.

    Raises:
        BenchmarkError: see readings, generators and Bundle.newest.
    """
    bundle = Bundle.newest(arguments.models, arguments.model)
    candidates = generators(bundle.model)
    # The driver of the meter warms up.
    meter = Meter(OwnDriver(), arguments.connections, arguments.seconds)
    server = ours(bundle.file, arguments.flags)[FRONTS.index(arguments.front)]
    subject = Subject(server, Questions.of_pixels(bundle, CELLS[0].images + arguments.rounds))
    on = machine(_PACKAGES)
    with running([subject]):
        with reported(server, ", before any load"):
            subject.questions.check(server.address)
        Meter(OwnDriver(), arguments.connections, 0.5).measure(subject, Cell(16, 1), 0)
        measured = [*readings(meter, subject, candidates, arguments.rounds)]
        closed = [one for one in measured if one.generator == _BENCH]
        loops = _loops(meter, subject, bundle.model, closed, arguments.rounds)
    about = meter.about(bundle, arguments.rounds) | {"driver": "each generator"}
    print(heading_of_load(on, about), table(measured), table(loops), sep="\n\n")
    write_json(arguments.json, on, about, readings=measured, loops=loops)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
