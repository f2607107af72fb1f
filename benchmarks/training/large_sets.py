"""Measures what a large set of photographs costs: memory, time to the first step, input.

    python -m benchmarks.training.large_sets --photos cats_dogs
    python -m benchmarks.training.large_sets --photos cats_dogs --counts 2000 --steps 10
    python -m benchmarks.training.large_sets --photos cats_dogs --without-net --steps 100000

Sets of several sizes are made of real photographs (`benchmarks.harness.many_photos`). The
lecture's net is trained on each, several times, each time by a process of its own: the first one
has an empty cache, the second one finds what the first has left. Memory is what belongs to no file.
The table goes to standard output as Markdown, progress to standard error.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.harness import many_photos
from benchmarks.harness.command import (
    BenchmarkError,
    add_photos_option,
    add_run_options,
    execute,
    new_parser,
    numbers,
    tell,
    whole,
)
from benchmarks.harness.memory import MemoryWatch
from benchmarks.harness.pictures import pictures
from benchmarks.harness.processes import process_tree
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from benchmarks.training import runs
from convserve_trainer.runs.history import read_csv

_PACKAGES = ("convserve", "keras", "tensorflow")
CACHES = ("disk", "none")
#: Begins the table of epochs: the first step is next.
_READY = re.compile(r"epoch\s+loss")
#: Follows the last epoch.
_TRAINED = re.compile(r"input took ")
_BATCH = re.compile(r"ms a batch (\S+)")


@dataclass(frozen=True)
class Cost:
    """What one training cost.

    Attributes:
        count: photographs of the set.
        cache: where pixels were kept.
        run: 1 for the one that found nothing.
        start_s: from the start of the process to the first step.
        start_cpu_s: processor time of all its threads until then.
        start_bytes: most memory until then.
        train_bytes: most memory while it trained and validated.
        end_bytes: most memory while it was evaluated, exported and published.
        step_ms: mean time of a step after the first epoch; without a net, of a batch.
        input_share: of that, 0 to 1, in which the net waits for pictures; None without a net.
    """

    count: int
    cache: str
    run: int
    start_s: float
    start_cpu_s: float
    start_bytes: int
    train_bytes: int
    end_bytes: int
    step_ms: float
    input_share: float | None


class Watched(NamedTuple):
    """What was seen of a training from outside; see `Cost`."""

    start_s: float
    start_cpu_s: float
    start_bytes: int
    train_bytes: int
    end_bytes: int
    lines: Sequence[str]


def train(command: Sequence[str], environment: Mapping[str, str]) -> Watched:
    """Runs a training; `lines` are the last ones that it printed.

    Raises:
        BenchmarkError: it failed; the message has its last lines.
    """
    begun, started, last = time.perf_counter(), (0.0, 0.0), deque[str](maxlen=20)
    watches = []
    with (
        subprocess.Popen(
            command,
            cwd=runs.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        ExitStack() as watching,
    ):

        def next_phase() -> None:
            watching.close()
            watches.append(MemoryWatch(process.pid))
            watching.enter_context(watches[-1].watching())

        try:
            next_phase()
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line)
                if _READY.match(line):
                    cpu_s = sum(process_tree(process.pid).values())
                    started = time.perf_counter() - begun, cpu_s
                    next_phase()
                elif _TRAINED.match(line):
                    next_phase()
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status or len(watches) != 3:
        raise BenchmarkError(f"{' '.join(command)} ended with status {status}:\n{''.join(last)}")
    before, training, end = (watch.most for watch in watches)
    return Watched(*started, before, training, end, last)


def costs(
    data: Path, count: int, cache: str, trainings: int, epochs: int, steps: int, with_net: bool
) -> Iterator[Cost]:
    """Yields what trainings cost, one after the other, of which the first finds an empty cache.

    Args:
        data: folder with train and validation.
        count: photographs in it.
        cache: where pixels are kept.
        trainings: one or more.
        epochs: of each, two or more: the first one compiles the net.
        steps: of an epoch.
        with_net: whether a net is trained; otherwise pictures are loaded and streamed alone.

    Raises:
        BenchmarkError: one failed.
    """
    more = ["--steps", str(steps), "--validation-steps", "1", "--min-accuracy", "0"]
    more += ["--cache", cache]
    with tempfile.TemporaryDirectory(dir=data.parent) as scratch:
        environment = {**environ, "XDG_CACHE_HOME": scratch}
        for number in range(1, trainings + 1):
            run = Path(scratch) / f"run-{number}"
            if with_net:
                seen = train(runs.ours("photos", data, run, epochs, more), environment)
                _, *measured = read_csv((run / "history.csv").read_text())
                step_ms = sum(epoch.seconds for epoch in measured) / len(measured) / steps * 1e3
                share: float | None = runs.input_share(run)
            else:
                seen = train(runs.keras("load_photos.py", data, cache, steps), environment)
                [step_ms] = [float(each[1]) for line in seen.lines if (each := _BATCH.match(line))]
                share = None
            yield Cost(count, cache, number, *seen[:-1], step_ms, share)
            tell(f"{count:,} photographs, --cache {cache}, training {number}: {seen.start_s:.1f} s")


def growth(seen: Sequence[Cost]) -> str:
    """Returns what each file adds to the memory, from the smallest set to the largest."""
    least, most = (pick(cost.count for cost in seen) for pick in (min, max))
    if least == most:
        return "one size only: growth is not known"

    def of(count: int) -> npt.NDArray[np.float64]:
        """Returns the bytes of each phase."""
        found = [
            (cost.start_bytes, cost.train_bytes, cost.end_bytes)
            for cost in seen
            if cost.count == count
        ]
        return np.median(found, axis=0).astype(np.float64)

    each = (of(most) - of(least)) / (most - least)
    return (
        f"from {least:,} to {most:,} photographs each adds {each[0]:,.0f} bytes before the first "
        f"step, {each[1]:,.0f} while training, {each[2]:,.0f} at the end (median of all trainings)"
    )


def _table(seen: Sequence[Cost]) -> str:
    header = (
        *("photographs", "--cache", "training", "s to the first step", "CPU s to it"),
        *("MiB before it", "MiB in training", "MiB at the end", "ms a step", "input's share"),
    )
    lines = [
        (
            *(f"{cost.count:,}", cost.cache, f"{cost.run}", f"{cost.start_s:.1f}"),
            f"{cost.start_cpu_s:.1f}",
            *(
                f"{each / 2**20:,.0f}"
                for each in (cost.start_bytes, cost.train_bytes, cost.end_bytes)
            ),
            f"{cost.step_ms:.1f}",
            "" if cost.input_share is None else f"{cost.input_share:.1%}",
        )
        for cost in seen
    ]
    return grid(header, lines, {"--cache"})


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.large_sets", __doc__)
    add_photos_option(result)
    result.add_argument(
        "--counts", type=numbers, default=[10_000, 100_000], metavar="N,N",
        help="photographs of the sets [default: 10000,100000]",
    )  # fmt: skip
    result.add_argument(
        "--classes", type=whole(2), default=1_000, metavar="N", help="[default: 1000]"
    )
    result.add_argument(
        "--folder", type=Path, metavar="DIR",
        help="where sets are made, and stay for the next time [default: a temporary one]",
    )  # fmt: skip
    result.add_argument(
        "--caches", type=lambda text: text.split(","), default=list(CACHES), metavar="NAME,NAME",
        help="values of --cache [default: disk,none]",
    )  # fmt: skip
    result.add_argument(
        "--epochs", type=whole(1), default=1, metavar="N",
        help="measured, after one that warms up [default: 1]",
    )  # fmt: skip
    result.add_argument(
        "--steps", type=whole(1), default=100, metavar="N", help="of an epoch [default: 100]"
    )
    result.add_argument(
        "--without-net", action="store_true",
        help="load pictures and stream batches alone: what input costs by itself",
    )  # fmt: skip
    add_run_options(result, rounds=2, measured="set and cache")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if a training failed.
    """
    seen: list[Cost] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        found = pictures(arguments.photos, many_photos.SOURCES)
        for count in arguments.counts:
            data = folder / f"photos-{count}"
            many_photos.make(data, found.files, count, arguments.classes)
            for cache in arguments.caches:
                epochs, steps = 1 + arguments.epochs, arguments.steps
                with_net = not arguments.without_net
                seen += costs(data, count, cache, arguments.rounds, epochs, steps, with_net)
    on = machine(_PACKAGES)
    net = "no net" if arguments.without_net else "the lecture's net"
    details = (f"made of {found.about}", f"{arguments.classes:,} classes", net)
    print(heading(on, "one training at a time", details), _table(seen), growth(seen), sep="\n\n")
    about = {"classes": arguments.classes, "steps": arguments.steps, "pictures": found.about}
    write_json(arguments.json, on, about, costs=seen)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
