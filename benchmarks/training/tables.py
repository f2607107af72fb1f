"""Measures what reading a Parquet table of pictures needs: seconds, and memory a picture.

    python -m benchmarks.training.tables --counts 10000,100000

Tables of small JPEGs, each of its own content, are written once. Then each is read as a training
reads it, up to the last decoded picture, in a process of its own and without a cache of pixels: the
first time, when the pictures are unpacked into an empty cache, and again. Needs the packages of
`pip install 'convserve[train,parquet]'`; make test-tables has an environment with them. The table
goes to standard output as Markdown, progress to standard error.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness.command import BenchmarkError, execute, new_parser, tell
from benchmarks.harness.memory import MemoryWatch
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid

_PACKAGES = ("convserve", "numpy", "pyarrow")
_CLASSES = 100
_GROUP = 1000  # rows
_SIDES = (64, 48)  # columns and rows of each picture
_EVERY = 10  # pictures, of which one is held out

#: Reads a table as a training does; prints how many pictures there are.
_READ = """
import sys
from pathlib import Path
from convserve_trainer.datasets import registry
from convserve_trainer.datasets.pictures import Source

path = Path(sys.argv[1])
reader = registry.find_format(registry.PHOTOS, path).reader
data = reader.load(Source(path, 48, 64, cache="none"), None, lambda _: None)
print(len(data.train) + len(data.held_out))
"""


@dataclass(frozen=True)
class Reading:
    """Of one table."""

    count: int
    table_bytes: int
    #: The first time, and again.
    seconds: tuple[float, float]
    #: Private memory at most, of the process, likewise.
    memory_bytes: tuple[int, int]


def make(path: Path, count: int) -> None:
    """Writes a table of so many pictures, with columns image, label and split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("image", pa.binary()), ("label", pa.string()), ("split", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, _GROUP):
            numbers = range(start, min(start + _GROUP, count))
            columns = [
                list(_pictures(numbers)),
                [f"class {number % _CLASSES}" for number in numbers],
                [_part(number) for number in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _pictures(numbers: Sequence[int]) -> Iterator[bytes]:
    """Yields JPEGs of soft patches of colour."""
    for number in numbers:
        patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(patches).resize(_SIDES).save(file, "JPEG")
        yield file.getvalue()


def _part(number: int) -> str:
    """Returns the part: each class has its share of both."""
    return "train" if number // _CLASSES % _EVERY else "validation"


def _reading(path: Path, count: int, cache: Path) -> Reading:
    make(path, count)
    tell(f"{count:,} pictures written")
    first, again = _read(path, count, cache), _read(path, count, cache)
    return Reading(count, path.stat().st_size, (first[0], again[0]), (first[1], again[1]))


def _read(path: Path, count: int, cache: Path) -> tuple[float, int]:
    """Returns seconds, and the most memory."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _READ, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        watch = MemoryWatch(process.pid)
        with watch.watching():
            printed, _ = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode or int(printed.splitlines()[-1]) != count:
        raise BenchmarkError(f"{path.name}: expected {count:,} pictures, got: {printed.strip()}")
    tell(f"{count:,} pictures read in {seconds:.1f} s")
    return seconds, watch.most


def _table(readings: Sequence[Reading]) -> str:
    header = (
        "pictures",
        "MB",
        "s, first",
        "s, again",
        "MB of memory, first",
        "again",
        "bytes a row",
    )
    lines = []
    before: Reading | None = None
    for one in readings:
        grown = "–"
        if before is not None:
            more = one.memory_bytes[1] - before.memory_bytes[1]
            grown = f"{more / (one.count - before.count):.0f}"
        lines.append(
            (
                f"{one.count:,}",
                f"{one.table_bytes / 1e6:.1f}",
                *(f"{seconds:.1f}" for seconds in one.seconds),
                *(f"{size / 1e6:.0f}" for size in one.memory_bytes),
                grown,
            )
        )
        before = one
    return grid(header, lines, set())


def _counts(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if sorted(set(found)) != found or found[0] < _CLASSES * _EVERY:
        raise ValueError
    return found


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.tables", __doc__)
    result.add_argument(
        "--counts", type=_counts, default=[10_000, 100_000], metavar="N,N",
        help=f"pictures of each table, {_CLASSES * _EVERY} or more, the fewest first "
        "[default: 10000,100000]",
    )  # fmt: skip
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return result


def run(arguments: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        BenchmarkError: if pyarrow is not installed, or a table could not be read.
    """
    if find_spec("pyarrow") is None:
        raise BenchmarkError("pyarrow is not installed: make test-tables has an environment")
    with tempfile.TemporaryDirectory() as folder:
        readings = [
            _reading(Path(folder) / f"{count}.parquet", count, Path(folder) / "cache")
            for count in arguments.counts
        ]
    on = machine(_PACKAGES)
    details = (f"JPEGs of {_SIDES[0]} x {_SIDES[1]}", "bytes a row: beyond the table before")
    print(heading(on, "everything", details), _table(readings), sep="\n\n")
    write_json(arguments.json, on, {"counts": arguments.counts}, readings=readings)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
