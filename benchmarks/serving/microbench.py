"""Measures where the time of a call goes: each stage in a worker, the library, and the whole.

    python -m benchmarks.serving.microbench --models models --model mnist
    python -m benchmarks.serving.microbench --model mnist --against models/mnist/1/model.onnx

The stages are measured on one thread, without the network: events as the library gives them go
through the transport, the router and the protocol into the queue; the batch is formed, run and
answered. Beside them stand an echo through the library and the whole server, both under load. What
is left of the whole is what no stage has by itself: threads that wait for each other and for the
GIL, caches that the engine has emptied, and batches that are smaller than there are callers.

With --against only the engine is measured, with that file and with the newest version in turn.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.answers import Call as Asked
from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.call_stages import Stage, refused_of, stages_of
from benchmarks.harness.command import (
    add_load_options,
    add_models_option,
    add_run_options,
    execute,
    new_parser,
    whole,
)
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import Cell, grid
from benchmarks.serving import two_bundles
from convserve_server.core.policies import ModelPolicy
from convserve_server.core.preparer import Preparer
from convserve_server.core.repository import ModelLimits, Repository
from convserve_server.engines.bundles import load_bundle
from convserve_server.engines.loader import EngineOptions, load_engine
from convserve_server.process.local_control import LocalControl

_PACKAGES = ("convserve", "numpy", "onnxruntime", "protobuf", "pygrpc-native")
_BATCHES = ((1, 1), (16, 1), (64, 1), (1, 64))
_LIMITS = ModelLimits(64, 4096, 2**28, 0.0, 2**26, 2**28)
#: A server of one worker and one engine thread: the whole of what the stages are parts of.
_FLAGS = "--workers 1 --engine-threads 1"

_ECHO = "library: an echo of as many bytes"
_WHOLE = "the whole server"
_REST = "threads that wait for each other, caches, smaller batches"


class _Echoed:
    """Questions to a server that does not answer them."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self.rows: NDArray[np.float32] = questions.rows

    def call(self, first: int, count: int) -> Asked:
        """See RequestSet.call."""
        return self._questions.call(first, count)._replace(least_reply_bytes=1)

    def check(self, address: str) -> None:
        """See RequestSet.check."""


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.microbench", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    add_load_options(result)
    result.add_argument(
        "--repeats", type=whole(1), default=60, metavar="N", help="of each stage [default: 60]"
    )
    result.add_argument(
        "--against", type=Path, metavar="FILE",
        help="model file of another version, whose engine is measured beside the newest one's",
    )  # fmt: skip
    add_run_options(result, rounds=3, measured="server and cell")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    bundle = Bundle.newest(arguments.models, arguments.model)
    if arguments.against is not None:
        two_bundles.run(arguments.against, bundle, arguments.repeats, arguments.json)
        return
    questions = Questions.of_pixels(bundle, 64)
    control = LocalControl(arguments.models, lambda _: ModelPolicy())
    repository = Repository(lambda _: _LIMITS, control.switch)
    options = EngineOptions("cpu", 1)
    preparer = Preparer(
        lambda _, path, batch_s: load_bundle(
            path, lambda path: load_engine(path, options), batch_s
        ),
        repository,
        control.on_prepared,
        control.on_failed,
    )
    control.attach(repository, preparer)
    control.scan()
    try:
        stages = [
            stage
            for calls, images in _BATCHES
            for stage in stages_of(repository, questions, calls, images, arguments.repeats)
        ]
        refused = refused_of(repository, questions, arguments.repeats)
    finally:
        repository.close(1.0)
    meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
    loaded = list(_under_load(meter, bundle, questions, arguments.rounds))
    on = machine(_PACKAGES)
    details = (
        f"{bundle.model}/{bundle.version}", f"stages: least of {arguments.repeats}",
        f"under load: {meter.driver.name}, {_FLAGS}, medians of {arguments.rounds}",
    )  # fmt: skip
    handled, early = (stage.us_a_call for stage in refused)
    about = (
        f"A call that is refused, for it has too little time: {handled:.1f} µs;"
        f" while others are, before it is made: {early:.1f} µs."
    )
    table = _table(stages, loaded)
    print(heading(on, "each", details), table, about, sep="\n\n")
    write_json(arguments.json, on, {"model": bundle.model}, stages=[*stages, *loaded, *refused])


def _under_load(meter: Meter, bundle: Bundle, questions: Questions, rounds: int) -> Iterator[Stage]:
    """Measures an echo through the library and the whole server, CPU a call."""
    size = questions.least_reply_bytes(1)
    command = [sys.executable, "-m", "benchmarks.harness.echo_server", str(size)]
    subjects = [
        Subject(ServerProcess(_ECHO, command), _Echoed(questions)),
        Subject(ours(bundle.file, _FLAGS)[1], questions, _WHOLE),
    ]
    cells = [Cell(calls, images) for calls, images in _BATCHES]
    with running(subjects):
        measured = list(measurements(meter, subjects, cells, rounds))
    for cell in cells:
        for subject in subjects:
            found = [
                one.cpu_us_a_call
                for one in measured
                if (one.server, one.cell) == (subject.name, cell)
            ]
            yield Stage(subject.name, cell.callers, cell.images, statistics.median(found))


def _table(stages: Sequence[Stage], loaded: Sequence[Stage]) -> str:
    cases = list(dict.fromkeys((stage.calls, stage.images) for stage in stages))
    names = [_ECHO, *dict.fromkeys(stage.name for stage in stages)]
    found = {(one.name, one.calls, one.images): one.us_a_call for one in (*stages, *loaded)}
    lines = [[name, *(f"{found[name, *case]:.1f}" for case in cases)] for name in names]
    sums = [sum(found[name, *case] for name in names) for case in cases]
    wholes = [found[_WHOLE, *case] for case in cases]
    rest = [one - total for one, total in zip(wholes, sums, strict=True)]
    for name, values in (("together", sums), (_REST, rest), (_WHOLE, wholes)):
        lines.append([name, *(f"{value:.1f}" for value in values)])
    header = ["CPU, µs a call", *(f"{calls} x {images}" for calls, images in cases)]
    return grid(header, lines, {"CPU, µs a call"})


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
