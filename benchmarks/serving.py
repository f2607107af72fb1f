"""Measures the server beside a naive one: calls/s, latency and processor time a call.

    python -m benchmarks.serving --models models --model mnist

All servers are up all the time and take turns; each round begins with another one. Their answers
are checked with a real client at first and after every measurement. The table goes to standard
output as Markdown, progress to standard error.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np

from benchmarks.answers import Questions, WrongAnswer
from benchmarks.h2load import H2loadDriver
from benchmarks.load import Driver, LoadError, OwnDriver, Task
from benchmarks.processes import ServerFailed, ServerProcess
from benchmarks.table import Cell, Measurement, document, heading, machine, markdown, rows
from convserve_server.bundle import list_bundles

CELLS = (Cell(1, 1), Cell(16, 1), Cell(64, 1), Cell(256, 1), Cell(4, 64))
BASELINE = "naive"
FRONTS = ("grpcio", "native")

_WARM_UP = Cell(16, 1)
_WARM_UP_S = 0.5


class BenchmarkError(Exception):
    """The benchmark cannot be run, or its figures would mean nothing; str() says why."""


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0]
    )
    result.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR",
        help="folder of bundles [default: models]",
    )  # fmt: skip
    result.add_argument(
        "--model", default="mnist", metavar="NAME",
        help="of which the newest version is served [default: mnist]",
    )  # fmt: skip
    result.add_argument(
        "--rounds", type=int, default=3, metavar="N",
        help="measurements of each server and cell [default: 3]",
    )  # fmt: skip
    result.add_argument(
        "--seconds", type=float, default=2.0, metavar="S",
        help="length of a measurement, from 0.05 [default: 2]",
    )  # fmt: skip
    result.add_argument(
        "--driver", choices=("auto", "h2load", "own"), default="auto",
        help="what makes the calls; auto: h2load where it is installed [default: auto]",
    )  # fmt: skip
    result.add_argument(
        "--connections", type=int, choices=(1, 2, 4, 8, 16), default=4,
        help="over which callers are spread; several workers need more [default: 4]",
    )  # fmt: skip
    result.add_argument(
        "--flags", default="", metavar="FLAGS",
        help="more flags for convserve-serve, as '--workers 1 --engine-threads 2'",
    )  # fmt: skip
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return result


def newest_bundle(models: Path, model: str) -> Path:
    """The model file of the newest version.

    Raises:
        BenchmarkError: if there is none.
    """
    versions = list_bundles(models).get(model, {}) if models.is_dir() else {}
    if not versions:
        raise BenchmarkError(f"there is no bundle in {models / model}; run make demo first")
    return versions[max(versions)]


def choose_driver(name: str) -> Driver:
    """The driver asked for.

    Raises:
        BenchmarkError: if it is h2load, and not installed.
    """
    if name == "own" or (name == "auto" and not H2loadDriver.is_installed()):
        return OwnDriver()
    if not H2loadDriver.is_installed():
        raise BenchmarkError(
            "h2load is not installed; Debian and Ubuntu: apt install nghttp2-client"
        )
    return H2loadDriver()


def servers(bundle: Path, flags: str = "") -> list[ServerProcess]:
    """The baseline and ours with each front, not started; on the CPU, otherwise as they come.

    Args:
        bundle: the model file.
        flags: more flags for ours.
    """
    naive = [sys.executable, str(Path(__file__).with_name("naive_server.py")), str(bundle)]
    ours = [sys.executable, "-m", "convserve_server.main", "--models", str(bundle.parents[2])]
    ours += ["--port", "0", "--device", "cpu", "--log-format", "json", *flags.split()]
    return [
        ServerProcess(BASELINE, naive),
        *(
            ServerProcess(f"convserve, {front} {flags}".strip(), [*ours, "--front", front])
            for front in FRONTS
        ),
    ]


@dataclass(frozen=True)
class Meter:
    """Measures one server at a time.

    Args:
        driver: makes the calls.
        questions: what is asked, and the right answers.
        connections: over which callers are spread.
    """

    driver: Driver
    questions: Questions
    connections: int

    def measure(
        self, server: ServerProcess, cell: Cell, seconds: float, round_: int
    ) -> Measurement:
        """One server under one kind of load, its answers checked afterwards.

        Raises:
            BenchmarkError: with the server's output, if a call failed or an answer was wrong.
        """
        task = Task(
            address=server.address,
            request=self.questions.request(0, cell.images).SerializeToString(),
            least_reply_bytes=self.questions.least_reply_bytes(cell.images),
            callers=cell.callers,
            connections=min(cell.callers, self.connections),
            seconds=seconds,
        )
        with _reported(server, f", {cell}"):
            before = server.cpu_s()
            load = self.driver.run(task)
            cpu_s = server.cpu_s() - before
            # Answered after the calls that the driver cut off: the next one starts clean.
            self.questions.check(server.address)
        calls = len(load.latencies_ms)
        p50, p99 = np.percentile(load.latencies_ms, (50, 99)).tolist()
        return Measurement(
            server=server.name,
            cell=cell,
            round=round_,
            calls=calls,
            calls_per_s=calls / load.seconds,
            p50_ms=p50,
            p99_ms=p99,
            cpu_us_a_call=cpu_s / calls * 1e6,
        )


@contextmanager
def _reported(server: ServerProcess, when: str) -> Iterator[None]:
    """Turn what can go wrong with a server into a BenchmarkError that shows its output."""
    try:
        yield
    except (LoadError, WrongAnswer, ServerFailed) as error:
        raise BenchmarkError(
            f"{server.name}{when}: {error}\nlast output of {server.name}:\n{server.output()}"
        ) from error


def turns(
    servers: Sequence[ServerProcess], rounds: int
) -> Iterator[tuple[int, Cell, ServerProcess]]:
    """Every server in every cell in every round; each round begins with the next server."""
    for round_ in range(rounds):
        first = round_ % len(servers)
        for cell in CELLS:
            for server in (*servers[first:], *servers[:first]):
                yield round_ + 1, cell, server


def run(arguments: argparse.Namespace) -> None:
    """Start the servers, measure, stop them, print.

    Raises:
        BenchmarkError: see Meter.measure, newest_bundle and choose_driver.
    """
    bundle = newest_bundle(arguments.models, arguments.model)
    driver = choose_driver(arguments.driver)
    on = machine()
    with ExitStack() as stack:
        started = []
        for server in servers(bundle, arguments.flags):
            with _reported(server, ", starting"):
                started.append(stack.enter_context(server))
        questions = Questions.of_bundle(bundle, max(cell.images for cell in CELLS))
        meter = Meter(driver, questions, arguments.connections)
        measurements = list(_measurements(meter, started, arguments.rounds, arguments.seconds))
    table = rows(measurements, BASELINE)
    about = {
        "model": f"{questions.model}/{questions.version}",
        "driver": driver.name,
        "connections": arguments.connections,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    print(heading(on, about), markdown(table), sep="\n\n")
    if arguments.json is not None:
        content = document(on, about, measurements, table)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


def _measurements(
    meter: Meter, servers: Sequence[ServerProcess], rounds: int, seconds: float
) -> Iterator[Measurement]:
    for server in servers:
        with _reported(server, ", before any load"):
            meter.questions.check(server.address)
        meter.measure(server, _WARM_UP, min(_WARM_UP_S, seconds), 0)
    _tell(f"{len(servers)} servers warmed up")
    for round_, cell, server in turns(servers, rounds):
        one = meter.measure(server, cell, seconds, round_)
        _tell(f"round {round_}, {cell}, {server.name}: {one.calls_per_s:.0f} calls/s")
        yield one


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _interrupt_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """Another one would cut short the stopping of the servers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Measure.

    Returns: 0 after a table, 1 after a failure, 130 after Ctrl-C or SIGTERM.
    """
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds: {arguments.rounds} is not at least 1")
    if not 0.05 <= arguments.seconds <= 3600:
        parser.error(f"--seconds: {arguments.seconds:g} is not within 0.05 to 3600")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    try:
        run(arguments)
    except (BenchmarkError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted, the servers are stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
