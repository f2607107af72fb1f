"""Measures servers in turn, each answer checked before a figure counts."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import Call, WrongAnswer
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import BenchmarkError, tell
from benchmarks.harness.h2load import H2loadDriver
from benchmarks.harness.load import Driver, LoadError, OwnDriver, Task
from benchmarks.harness.processes import ServerFailed, ServerProcess
from benchmarks.harness.table import Cell, Measurement

_WARM_UP = Cell(16, 1)
_WARM_UP_S = 0.5

Item = TypeVar("Item")


class RequestSet(Protocol):
    """Requests with known answers, in a protocol that a server speaks."""

    @property
    def rows(self) -> NDArray[np.float32]:
        """The right answers: float32 [N, K]."""

    def call(self, first: int, count: int) -> Call:
        """Some of the images as a call."""

    def check(self, address: str) -> None:
        """Ask and compare.

        Raises:
            WrongAnswer: if a call failed, or an answer was wrong.
        """


class Subject(NamedTuple):
    """A server, and what it is asked: the right answer may depend on how it decodes.

    Several may have the same server, which is then asked in several ways.

    Attributes:
        server: that is measured.
        questions: that it is asked.
        title: for the table; empty: the server's name.
        tls: whether the server speaks TLS.
    """

    server: ServerProcess
    questions: RequestSet
    title: str = ""
    tls: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return self.title or self.server.name


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


@dataclass(frozen=True)
class Meter:
    """Measures one server at a time.

    Args:
        driver: makes the calls.
        connections: over which callers are spread.
        seconds: length of a measurement.
    """

    driver: Driver
    connections: int
    seconds: float

    def about(self, bundle: Bundle, rounds: int) -> dict[str, Any]:
        """What is measured and how, for the table and JSON."""
        return {
            "model": f"{bundle.model}/{bundle.version}",
            "driver": self.driver.name,
            "connections": self.connections,
            "rounds": rounds,
            "seconds": self.seconds,
        }

    def task(self, subject: Subject, cell: Cell, round_: int) -> Task:
        """The calls of a measurement: all alike, in each round of another image."""
        questions = subject.questions
        first = round_ % (len(questions.rows) - cell.images + 1)
        call = questions.call(first, cell.images)
        return Task(
            address=subject.server.address,
            request=call.body,
            least_reply_bytes=call.least_reply_bytes,
            callers=cell.callers,
            connections=min(cell.callers, self.connections),
            seconds=self.seconds,
            path=call.path,
            content_type=call.content_type,
            headers=call.headers,
            tls=subject.tls,
        )

    def measure(self, subject: Subject, cell: Cell, round_: int) -> Measurement:
        """One server under one kind of load, its answers checked afterwards.

        Raises:
            BenchmarkError: with the server's output, if a call failed or an answer was wrong.
        """
        server = subject.server
        task = self.task(subject, cell, round_)
        with reported(server, f", {cell}"):
            before = server.cpu_s()
            load = self.driver.run(task)
            cpu_s = server.cpu_s() - before
            # Answered after the calls that the driver aborted: the next one starts clean.
            subject.questions.check(server.address)
        calls = len(load.latencies_ms)
        p50, p99 = np.percentile(load.latencies_ms, (50, 99)).tolist()
        return Measurement(
            server=subject.name,
            cell=cell,
            round=round_,
            calls=calls,
            calls_per_s=calls / load.seconds,
            p50_ms=p50,
            p99_ms=p99,
            cpu_us_a_call=cpu_s / calls * 1e6,
        )


@contextmanager
def reported(server: ServerProcess, when: str) -> Iterator[None]:
    """Raises a BenchmarkError with the server's output for whatever goes wrong with it."""
    try:
        yield
    except (LoadError, WrongAnswer, ServerFailed) as error:
        raise BenchmarkError(
            f"{server.name}{when}: {error}\nlast output of {server.name}:\n{server.output()}"
        ) from error


@contextmanager
def running(subjects: Sequence[Subject]) -> Iterator[None]:
    """Start all servers, and stop them at the end.

    Raises:
        BenchmarkError: with its output, if one does not start.
    """
    with ExitStack() as stack:
        for server in dict.fromkeys(subject.server for subject in subjects):
            with reported(server, ", starting"):
                stack.enter_context(server)
        yield


def interleaved(
    subjects: Sequence[Subject], cells: Sequence[Cell], rounds: int
) -> Iterator[tuple[int, Cell, Subject]]:
    """Every server in every cell in every round, counted from 1."""
    for round_ in range(rounds):
        for cell in cells:
            for subject in rotated(subjects, round_):
                yield round_ + 1, cell, subject


def rotated(items: Sequence[Item], round_: int) -> Sequence[Item]:
    """All of them, beginning in each round with the next one."""
    first = round_ % len(items)
    return [*items[first:], *items[:first]]


def measurements(
    meter: Meter, subjects: Sequence[Subject], cells: Sequence[Cell], rounds: int
) -> Iterator[Measurement]:
    """Check and warm up all servers, then measure them in turn.

    Raises:
        BenchmarkError: see Meter.measure.
    """
    warmer = Meter(meter.driver, meter.connections, min(_WARM_UP_S, meter.seconds))
    for subject in subjects:
        with reported(subject.server, ", before any load"):
            subject.questions.check(subject.server.address)
        warmer.measure(subject, _WARM_UP, 0)
    tell(f"{len({subject.server for subject in subjects})} servers warmed up")
    for round_, cell, subject in interleaved(subjects, cells, rounds):
        one = meter.measure(subject, cell, round_)
        tell(f"round {round_}, {cell}, {subject.name}: {one.calls_per_s:.0f} calls/s")
        yield one
