"""Folders of images, and convserve-score as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from convserve_scoring.main import main
from tests.jpegs import jpeg_of
from tests.program import Program

HOOKS = Path(__file__).parent / "hooks"
#: Images of a shard, unless a test says otherwise.
SHARD = 4
DAMAGED = b"\xff\xd8\xff damaged"
POISON = b"POISON"


def write_images(folder: Path, count: int, others: Mapping[int, bytes] | None = None) -> list[str]:
    """Writes small JPEGs of three colours; returns their names, sorted.

    Args:
        folder: of them, and of a folder in it.
        count: of them.
        others: what files hold that are not such JPEGs, by their number.
    """
    names = []
    for number in range(count):
        colour = ("red", "green", "blue")[number % 3]
        name = f"{'a' if number < count // 2 else 'b'}/{number:04}.jpg"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = jpeg_of(colour, (160, 150), number % 7)
        path.write_bytes((others or {}).get(number, content))
        names.append(name)
    return names


def write_parquet(path: Path, images: Sequence[tuple[str | None, bytes | None]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    paths, contents = zip(*images, strict=True) if images else ((), ())
    columns = {"path": pa.array(paths, pa.string()), "bytes": pa.array(contents, pa.binary())}
    pq.write_table(pa.table(columns), path)


def plan(source: Path, target: Path, model: Path, *flags: str) -> None:
    """Makes a plan of small shards."""
    arguments = ["plan", str(source), "--target", str(target), "--model", str(model)]
    assert main([*arguments, "--shard-images", str(SHARD), *flags]) == 0


def rows(target: Path) -> pa.Table:
    """All rows, in the order of their paths."""
    files = sorted((target / "rows").rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).sort_by("path")


@dataclass(frozen=True)
class Gate:
    """A file at which a process waits; see hooks."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Gate":
        folder.mkdir()
        os.mkfifo(folder / "go")
        gate = cls(folder)
        gate.close()
        return gate

    def close(self) -> None:
        """Has the next process wait that comes there."""
        os.mkfifo(self.folder / "pid")

    @property
    def content(self) -> bytes:
        return b"GATE " + os.fsencode(self.folder)

    def reached_by(self) -> int:
        """Waits until a process is there; returns its id. No other one will stop there."""
        with (self.folder / "pid").open() as pipe:
            pid = int(pipe.read())
        (self.folder / "pid").unlink()
        return pid

    def open(self) -> None:
        """Lets the process go on."""
        with (self.folder / "go").open("w"):
            pass


def start(*arguments: str | Path, **variables: str) -> Program[str]:
    """Starts convserve-score with harmful images."""
    return Program(
        [sys.executable, "-m", "convserve_scoring.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HOOKS)} | variables,
    )


def finished(program: Program[str]) -> tuple[int, str, str]:
    """Waits; returns exit status, standard output and standard error."""
    with program:
        out, err = program.communicate()
    return program.returncode, out, err


def score(*arguments: str | Path, **variables: str) -> tuple[int, str, str]:
    """Runs convserve-score with harmful images; returns as finished()."""
    return finished(start(*arguments, **variables))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
