"""One server at a time, as some are never idle: started, measured, sent a wrong shape, stopped."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.harness.client import Refused, WireQuestions, ask
from benchmarks.harness.command import BenchmarkError, tell
from benchmarks.harness.memory import proportional_bytes
from benchmarks.harness.meter import Meter, Subject, reported
from benchmarks.harness.processes import ServerFailed, ServerProcess, process_tree
from benchmarks.harness.table import Cell, Measurement

_WARM_UP = Cell(16, 1)
_WARM_UP_S = 2.0
_WARM_UPS = 10
_START_S = 90.0
_AGAIN_S = 0.02


@dataclass(frozen=True)
class Refusal:
    """What a server says to a call with an image of a wrong shape.

    Args:
        sent: the shape.
        status: name of the gRPC status, or HTTP and a number.
        message: what came with it.
    """

    sent: str
    status: str
    message: str


@dataclass
class Record:
    """What is known of one server.

    Args:
        server: its name.
        protocol: and the form of the pixels.
        measurements: of all rounds and cells.
        start_s: of each round: from its start to the first answer.
        idle_bytes: of each round: memory of all its processes before any load.
        refusal: of the first round.
        failure: why it has no figures; empty if it has.
    """

    server: str
    protocol: str
    measurements: list[Measurement] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    idle_bytes: list[int] = field(default_factory=list)
    refusal: Refusal | None = None
    failure: str = ""


def measure_server(
    meter: Meter,
    server: ServerProcess,
    questions: WireQuestions,
    cells: Sequence[Cell],
    record: Record,
) -> None:
    """Start a server, measure every cell, stop it. What is known is added to the record.

    Raises:
        BenchmarkError: with its output, if it does not start, a call fails or an answer is wrong.
    """
    round_ = len(record.start_s)
    subject = Subject(server, questions)
    with _answering(server, questions) as start_s:
        record.start_s.append(start_s)
        record.idle_bytes.append(sum(proportional_bytes(server.root())))
        with reported(server, ", before any load"):
            questions.check(server.address)
        _warm_up(meter, subject, round_)
        for cell in cells:
            one = meter.measure(subject, cell, round_)
            tell(f"round {round_ + 1}, {cell}, {server.name}: {one.calls_per_s:.0f} calls/s")
            record.measurements.append(replace(one, round=round_ + 1))
        if record.refusal is None:
            record.refusal = _refusal(server.address, questions)


def _warm_up(meter: Meter, subject: Subject, round_: int) -> None:
    """Make load until a while passes without a failed call: some reload parts after they serve.

    Raises:
        BenchmarkError: with its output, if calls fail in every one of several attempts.
    """
    short = replace(meter, seconds=min(_WARM_UP_S, meter.seconds))
    for left in reversed(range(_WARM_UPS)):
        try:
            short.measure(subject, _WARM_UP, round_)
        except BenchmarkError as error:
            if not left:
                raise
            tell(f"warming up: {error}")
        else:
            return


@contextmanager
def _answering(server: ServerProcess, questions: WireQuestions) -> Iterator[float]:
    """Start a server, stop it at the end; gives the seconds to its first answer."""
    started = time.monotonic()
    with reported(server, ", starting"):
        server.__enter__()
    try:
        with reported(server, ", starting"):
            _wait_for_answer(server, questions, started + _START_S)
        yield time.monotonic() - started
    finally:
        server.__exit__(None, None, None)


def _wait_for_answer(server: ServerProcess, questions: WireQuestions, end: float) -> None:
    """Ask until it answers: some have a port before they have a model.

    Raises:
        ServerFailed: if it ended, or does not answer in time.
    """
    while True:
        try:
            ask(server.address, questions.wire_format, questions.images[:1])
        except (Refused, OSError) as error:
            if not process_tree(server.root()):
                raise ServerFailed(f"{server.name} ended") from error
            if time.monotonic() > end:
                raise ServerFailed(f"no answer within {_START_S:g} s: {error}") from error
            time.sleep(_AGAIN_S)
        else:
            return


def _refusal(address: str, questions: WireQuestions) -> Refusal:
    """The answer to one image with a row too few."""
    pixels = np.ascontiguousarray(questions.images[:1, 1:])
    sent = str(list(pixels.shape))
    try:
        ask(address, questions.wire_format, pixels)
    except Refused as error:
        return Refusal(sent, error.status, error.message)
    except OSError as error:
        return Refusal(sent, type(error).__name__, str(error))
    return Refusal(sent, "OK", "")
