"""Trainings as processes, watched from outside: when each epoch ended, and the accuracy."""

import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.command import BenchmarkError
from convserve_trainer.runs.history import read_csv

ROOT = Path(__file__).parents[2]
_SHOWN_LINES = 20
#: What ends an epoch: our row of it, or the line that the Keras scripts add.
_EPOCH = re.compile(r"\s*\d+/\d+ +\d+\.\d+ +\d|epoch finished$")
#: Of the held-out pictures, by Keras in both.
_ACCURACY = re.compile(r"(?:held-out .*, Keras .*)?accuracy (\d\.\d+)")


@dataclass(frozen=True)
class TrainingRun:
    """What was seen of one training.

    Attributes:
        epoch_s: mean length of the epochs after the first, with all that is between them.
        whole_s: from the start of the process to its end.
        accuracy: on the held-out pictures, 0 to 1.
    """

    epoch_s: float
    whole_s: float
    accuracy: float


def watch(command: Sequence[str], environment: Mapping[str, str] | None = None) -> TrainingRun:
    """Runs a training.

    Args:
        command: of it.
        environment: its variables; None for those of this process.

    Raises:
        BenchmarkError: it failed, or printed too little; the message has its last lines.
    """
    begun = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            last: deque[str] = deque(maxlen=_SHOWN_LINES)
            seen = ((time.perf_counter() - begun, _kept(line, last)) for line in process.stdout)
            ends, accuracy = read(seen)
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    whole_s = time.perf_counter() - begun
    if status or len(ends) < 2 or accuracy is None:
        output = "".join(last)
        raise BenchmarkError(f"{' '.join(command)} ended with status {status}:\n{output}")
    return TrainingRun((ends[-1] - ends[0]) / (len(ends) - 1), whole_s, accuracy)


def read(lines: Iterable[tuple[float, str]]) -> tuple[list[float], float | None]:
    """Reads the output of a training.

    Args:
        lines: each with the second at which it came.

    Returns:
        When the epochs ended, s, and the accuracy; None if there is none.
    """
    ends: list[float] = []
    accuracy: float | None = None
    for at, line in lines:
        if _EPOCH.match(line):
            ends.append(at)
        elif found := _ACCURACY.match(line):
            accuracy = float(found[1])
    return ends, accuracy


def ours(task: str, data: Path, run: Path, epochs: int, more: Sequence[str]) -> list[str]:
    """The command of a training of ours, kept in `run` as every named one."""
    return [
        *(sys.executable, "-m", "convserve_trainer.main", "fit", task, "--data", str(data)),
        *("--epochs", str(epochs), "--run", str(run), "--models", str(run.parent / "models")),
        *more,
    ]


def keras(script: str, *arguments: object) -> list[str]:
    """The command of a script beside this file."""
    return [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]


def input_share(run: Path) -> float:
    """Share of the steps' time that went into waiting for pictures, after the first epoch."""
    _, *epochs = read_csv((run / "history.csv").read_text())
    return sum(epoch.input_share for epoch in epochs) / len(epochs)


def _kept(line: str, last: deque[str]) -> str:
    last.append(line)
    return line
