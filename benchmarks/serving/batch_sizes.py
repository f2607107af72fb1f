"""Measures which batch size loads choose beside a busy neighbour, and images/s of each size.

    python -m benchmarks.serving.batch_sizes --models models --model mnist --workers 1 2

A server of its own is kept busy while others are started one after the other, each with an empty
--state-dir, and asked what they chose. Then servers with each size set, and one that chose, take
turns. Pixels, a number of images a call; a worker has one engine thread.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.answers import Questions
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import (
    BenchmarkError,
    add_load_options,
    add_models_option,
    add_run_options,
    execute,
    new_parser,
    numbers,
    tell,
    whole,
)
from benchmarks.harness.meter import Meter, Subject, choose_driver, measurements, running
from benchmarks.harness.multi_process_load import start
from benchmarks.harness.processes import ServerProcess
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.servers import ours
from benchmarks.harness.table import Cell, grid

_PACKAGES = ("convserve", "onnxruntime", "pygrpc-native")
#: Of the log line that says what is served.
_BEFORE, _AFTER = "batches of up to ", ","
#: Longer than all loads together: the neighbour is stopped.
_LOAD_S = 86400.0
#: Longest time until all workers of a server have loaded the model.
_LOADED_S = 60.0


@dataclass(frozen=True)
class Size:
    """A maximum batch size under load.

    Attributes:
        workers: of the server.
        size: that was set, or chosen.
        loads: that chose it.
        images_per_s: median of all rounds.
        to_best: ratio to the most of all sizes.
        cpu_us_an_image: median of all rounds.
    """

    workers: int
    size: int
    loads: int
    images_per_s: float
    to_best: float
    cpu_us_an_image: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.serving.batch_sizes", __doc__)
    add_models_option(result)
    result.add_argument("--model", default="mnist", metavar="NAME", help="[default: mnist]")
    result.add_argument(
        "--loads", type=whole(1), default=20, metavar="N", help="starts of a server [default: 20]"
    )
    result.add_argument(
        "--workers", type=whole(1), nargs="+", default=[1, 2], metavar="N",
        help="of each server [default: 1 2]",
    )  # fmt: skip
    result.add_argument(
        "--sizes", type=numbers, default=[1, 4, 16, 32, 64], metavar="N,N",
        help="that are compared [default: 1,4,16,32,64]",
    )  # fmt: skip
    result.add_argument(
        "--callers", type=whole(1), default=64, metavar="N", help="at once [default: 64]"
    )
    result.add_argument(
        "--images", type=whole(1), default=1, metavar="N", help="of each call [default: 1]"
    )
    add_load_options(result)
    add_run_options(result, rounds=5, measured="size")
    result.set_defaults(connections=16)
    return result


def run(arguments: argparse.Namespace) -> None:
    """Load, measure, and print.

    Raises:
        BenchmarkError: if a server does not start, or a call fails.
    """
    with tempfile.TemporaryDirectory(prefix="convserve-models-") as models:
        bundle = Bundle.newest(arguments.models, arguments.model).copy_to(Path(models))
        questions = Questions.of_pixels(bundle, max(arguments.images, 16))
        meter = Meter(choose_driver(arguments.driver), arguments.connections, arguments.seconds)
        cell = Cell(arguments.callers, arguments.images)
        sizes: list[Size] = []
        for workers in arguments.workers:
            with _busy_neighbour(_server(bundle, workers), bundle, cell):
                chosen = _choices(bundle, workers, arguments.loads)
            tell(f"{workers} workers: chosen (size: workers of all loads) {dict(chosen)}")
            sizes += _compare(meter, cell, bundle, questions, workers, chosen, arguments)
    on = machine(_PACKAGES)
    details = (
        f"{meter.about(bundle, arguments.rounds)['model']}, {cell}, {meter.driver.name}",
        f"{arguments.loads} loads beside a busy neighbour",
        f"rounds x seconds: {arguments.rounds} x {arguments.seconds:g}",
    )
    print(heading(on, "servers and load together", details), _table(sizes), sep="\n\n")
    write_json(arguments.json, on, meter.about(bundle, arguments.rounds), sizes=sizes)


def _server(bundle: Bundle, workers: int, flags: str = "") -> ServerProcess:
    return ours(bundle.file, f"--workers {workers} --engine-threads 1 {flags}".strip())[-1]


@contextmanager
def _busy_neighbour(server: ServerProcess, bundle: Bundle, cell: Cell) -> Iterator[None]:
    """Keeps a server busy until the end.

    Raises:
        BenchmarkError: if the load ended before.
    """
    flags = [f"--model={bundle.model}", f"--callers={cell.callers}", f"--images={cell.images}"]
    with running([Subject(server, Questions.of_pixels(bundle, 1))]):
        load = start(server.address, [*flags, f"--connections={min(16, cell.callers)}"], _LOAD_S)
        try:
            yield
            if load.poll() is not None:
                raise BenchmarkError(f"the neighbour's load ended: {load.communicate()}")
        finally:
            load.kill()
            load.communicate()


def _choices(bundle: Bundle, workers: int, loads: int) -> Counter[int]:
    """Which sizes the workers of servers that were started one after the other have chosen."""
    chosen: Counter[int] = Counter()
    for number in range(loads):
        with tempfile.TemporaryDirectory(prefix="convserve-state-") as state:
            server = _server(bundle, workers, f"--state-dir {state}")
            with running([Subject(server, Questions.of_pixels(bundle, 1))]):
                found = _chosen_by(server, bundle, workers)
        chosen.update(found)
        tell(f"load {number + 1} of {loads}, {workers} workers: {found}")
    return chosen


def _chosen_by(server: ServerProcess, bundle: Bundle, workers: int) -> list[int]:
    """What the workers of a server say: it may listen before all have loaded the model."""
    end = time.monotonic() + _LOADED_S
    while time.monotonic() < end:
        lines = [line for line in server.messages() if line.startswith(f"{bundle.model}/")]
        sizes = [line.partition(_BEFORE)[2].partition(_AFTER)[0] for line in lines]
        found = [int(size) for size in sizes if size]
        if len(found) == workers:
            return found
        time.sleep(0.05)
    raise BenchmarkError(f"not all of {workers} workers have loaded:\n{server.output()}")


def _compare(
    meter: Meter,
    cell: Cell,
    bundle: Bundle,
    questions: Questions,
    workers: int,
    chosen: Counter[int],
    arguments: argparse.Namespace,
) -> list[Size]:
    sizes = sorted({*arguments.sizes, *chosen})
    subjects = {
        size: Subject(_server(bundle, workers, f"--max-batch {size}"), questions) for size in sizes
    }
    with running([*subjects.values()]):
        measured = [*measurements(meter, [*subjects.values()], [cell], arguments.rounds)]
    rates, costs = {}, {}
    for size, subject in subjects.items():
        group = [one for one in measured if one.server == subject.name]
        rates[size] = cell.images * statistics.median(one.calls_per_s for one in group)
        costs[size] = statistics.median(one.cpu_us_a_call for one in group) / cell.images
    best = max(rates.values())
    return [
        Size(workers, size, chosen[size], rates[size], rates[size] / best, costs[size])
        for size in sizes
    ]


def _table(sizes: Sequence[Size]) -> str:
    header = (
        "workers", "maximum batch size", "workers that chose it", "images/s", "to the best",
        "server CPU µs an image",
    )  # fmt: skip
    lines = [
        (
            f"{one.workers}", f"{one.size}", f"{one.loads}", f"{one.images_per_s:.0f}",
            f"{one.to_best:.2f}", f"{one.cpu_us_an_image:.0f}",
        )
        for one in sizes
    ]  # fmt: skip
    return grid(header, lines, ())


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
