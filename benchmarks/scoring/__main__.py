"""Measures what each engine of convserve-score costs beside a plain loop.

    python -m benchmarks.scoring --model models/photos --photos DIR

The photographs of a folder, repeated under other names, some of them damaged, in shards. Each way
scores all of them and, to know its start-up, two shards of them. The loop comes first and last.
Rows are compared: they must be equal. A table goes to standard output as Markdown, progress to
standard error. It needs the environment of make test-cluster.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.command import BenchmarkError, execute, new_parser, tell, whole
from benchmarks.harness.memory import proportional_bytes
from benchmarks.harness.processes import own_seconds
from benchmarks.harness.report import heading, machine, write_json

_PACKAGES = ("dask", "distributed", "onnxruntime", "pyarrow", "ray", "simplejpeg")
_SCORE = (sys.executable, "-m", "convserve_scoring.main")
_SUFFIXES = (".jpg", ".jpeg")
#: How often processor time is read, and memory, s.
_EVERY_S, _MEMORY_EVERY_S = 0.2, 2.0
_MIB = 2**20

#: Flags of each way; several commands are run at the same time.
WAYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "local": (("--workers", "1"),),
    "index, 2 of them at a time": (
        ("--index", "0", "--of", "2", "--workers", "1"),
        ("--index", "1", "--of", "2", "--workers", "1"),
    ),
    "Ray": (("--engine", "ray", "--workers", "1"),),
    "Dask": (("--engine", "dask", "--workers", "1"),),
    "local, 2 processes": (("--workers", "2"),),
}


@dataclass(frozen=True)
class Run:
    """What one way needed for so many images.

    Attributes:
        wall_s: from its first instruction to its last.
        cpu_s: processor time of all its processes.
        peak_bytes: most memory of all of them at once, a page of n processes counting 1/n.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Figures:
    """A row of the table; `image_ms` is processor time without start-up."""

    way: str
    wall_s: float
    cpu_s: float
    startup_cpu_s: float
    image_ms: float
    peak_mib: float
    load: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.scoring", __doc__)
    result.add_argument(
        "--model", type=Path, required=True, metavar="PATH", help="of photographs, its folder"
    )
    result.add_argument(
        "--photos", type=Path, required=True, metavar="DIR", help="folder of JPEGs, at any depth"
    )
    result.add_argument(
        "--images", type=whole(2), default=6000, metavar="N", help="to score [default: 6000]"
    )
    result.add_argument(
        "--damaged", type=whole(0), default=30, metavar="N", help="of them [default: 30]"
    )
    result.add_argument(
        "--shard", type=whole(1), default=250, metavar="N", help="images of one [default: 250]"
    )
    result.add_argument(
        "--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS), metavar="WAY",
        help=f"which ones: {', '.join(WAYS)} [default: all]",
    )  # fmt: skip
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return result


def _write_source(folder: Path, photos: Sequence[Path], images: int, damaged: int) -> None:
    """Writes photographs, over and over under other names; some of them end in the middle."""
    broken = {number * images // damaged for number in range(damaged)} if damaged else set()
    for number in range(images):
        path = folder / f"{number % 10}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo = photos[number % len(photos)]
        if number in broken:
            path.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
        else:
            os.link(photo, path) if photo.stat().st_dev == folder.stat().st_dev else shutil.copy(
                photo, path
            )


class _Subject:
    """A way to score, on a small and on a large target."""

    def __init__(self, way: str, model: Path, flags: tuple[tuple[str, ...], ...] | None) -> None:
        self.way = way
        self._model = model
        self._flags = flags

    def run(self, target: Path) -> Run:
        """Scores all shards of a target anew."""
        shutil.rmtree(target / "rows", ignore_errors=True)
        if self._flags is None:
            command = [
                *(sys.executable, "-m", "benchmarks.scoring.plain_loop"),
                *("--shards", str(target / "shards"), "--model", str(self._model)),
                *("--rows", str(target / "rows")),
            ]
            return _measured([command])
        return _measured([[*_SCORE, "run", str(target), *flags] for flags in self._flags])


def _measured(commands: Sequence[Sequence[str]]) -> Run:
    """Runs commands at the same time, to their end.

    Raises:
        BenchmarkError: one fails.
    """
    began = time.monotonic()
    processes = [
        subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for one in commands
    ]
    with _watching([process.pid for process in processes]) as watch:
        errors = [process.communicate()[1] for process in processes]
    for command, process, error in zip(commands, processes, errors, strict=True):
        if process.returncode:
            raise BenchmarkError(f"{' '.join(command)}: {error}")
    return Run(time.monotonic() - began, sum(watch.seconds.values()), watch.peak)


class _Watch:
    """Processor time of processes and all below them, by process, and the memory of all at once."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self.peak = 0


@contextmanager
def _watching(roots: Sequence[int]) -> Iterator[_Watch]:
    watch, stop = _Watch(), threading.Event()

    def look() -> None:
        next_memory = 0.0
        while not stop.wait(_EVERY_S):
            for root in roots:
                # Its time without that of children, which are below it themselves; some of them,
                # as those of Ray, are never waited for.
                for pid, seconds in own_seconds(root).items():
                    watch.seconds[pid] = max(watch.seconds.get(pid, 0.0), seconds)
            if time.monotonic() >= next_memory:
                next_memory = time.monotonic() + _MEMORY_EVERY_S
                now = sum(sum(proportional_bytes(root)) for root in roots)
                watch.peak = max(watch.peak, now)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()


def _rows(target: Path) -> Any:
    """Returns the rows of a target, a pyarrow.Table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["path", "probabilities", "error"]
    files = sorted((target / "rows").iterdir())
    return pa.concat_tables([pq.read_table(file, columns=names) for file in files])


def _score(*arguments: str) -> None:
    done = subprocess.run([*_SCORE, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"convserve-score {' '.join(arguments)}: {done.stdout}{done.stderr}")


def run(options: argparse.Namespace) -> None:
    """Measures, and prints the table.

    Raises:
        BenchmarkError: a way fails, or its rows are not those of the loop.
    """
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix in _SUFFIXES)
    if not photos:
        raise BenchmarkError(f"--photos: expected JPEGs below {options.photos}, got none")
    if options.images <= 2 * options.shard:
        raise BenchmarkError(f"--images: expected more than two shards, got {options.images}")
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch) / "small", Path(scratch) / "large"
        for target, images in ((small, 2 * options.shard), (large, options.images)):
            source = Path(scratch) / f"{target.name}-source"
            _write_source(source, photos, images, options.damaged * images // options.images)
            _score(
                *("plan", str(source), "--target", str(target), "--model", str(options.model)),
                *("--shard-images", str(options.shard)),
            )
            shutil.rmtree(source)
        model = next(large.glob("models/*/*/model.onnx"))
        figures = _compare(small, large, model, options)
    on = machine(_PACKAGES)
    details = (
        f"{options.images:,} photographs, {options.damaged} of them damaged, in shards of "
        f"{options.shard}",
        f"model of {model.parent.parent.name}",
    )
    print(heading(on, "the way that is measured and all else", details), "\n")
    print(_markdown(figures))
    write_json(options.json, on, {"images": options.images}, ways=figures)


def _compare(small: Path, large: Path, model: Path, options: argparse.Namespace) -> list[Figures]:
    first, last = "plain loop, first", "plain loop, last"
    chosen = {way: WAYS[way] for way in options.ways}
    ways = {first: None, **chosen, last: None}
    figures: list[Figures] = []
    expected: Any = None
    for way, flags in ways.items():
        subject = _Subject(way, model, flags)
        little = subject.run(small)
        whole_run = subject.run(large)
        found = _rows(large)
        if expected is None:
            expected = found
        elif not found.equals(expected):
            raise BenchmarkError(f"{way}: expected the rows of {first}, got others")
        if flags is not None:
            _score("check", str(large))
        # Each process that works on the large set works on the small one as well.
        image_s = (whole_run.cpu_s - little.cpu_s) / (options.images - 2 * options.shard)
        figures.append(
            Figures(
                way,
                whole_run.wall_s,
                whole_run.cpu_s,
                little.cpu_s - 2 * options.shard * image_s,
                image_s * 1000,
                whole_run.peak_bytes / _MIB,
                os.getloadavg()[0],
            )
        )
        tell(f"{way}: {image_s * 1000:.2f} ms of CPU an image, equal rows; {figures[-1]}")
    return figures


def _markdown(figures: Sequence[Figures]) -> str:
    loops = [one.image_ms for one in figures if one.way.startswith("plain")]
    loop = sum(loops) / len(loops)
    lines = [
        "| way | s | CPU s | of that start-up | CPU ms an image without start-up "
        "| to the loop | peak MiB (PSS) | load average |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.way} | {one.wall_s:.1f} | {one.cpu_s:.1f} | {one.startup_cpu_s:.1f} "
        f"| {one.image_ms:.2f} | {one.image_ms / loop:.2f} | {one.peak_mib:,.0f} | {one.load:.1f} |"
        for one in figures
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
