"""What came of each training of a study: a line of JSON each, in a file beside the trials."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.best.trials import FOLDER, Study, Trial
from benchmarks.harness.command import BenchmarkError
from benchmarks.harness.table import grid

HEADER = ("trial", "why", "right", "least of the changed pictures")
COSTS = ("parameters", "MFLOP", "epochs", "minutes")


@dataclass(frozen=True)
class Result:
    """One training.

    Attributes:
        trial: its name.
        seed: of it.
        digest: of all settings; a result with another one is of another training.
        judged: by which pictures: a share of the training set, or the test set.
        pictures: so many.
        correct: of which so many are right.
        loss: on them, nats.
        changed: of the same pictures, changed on purpose, how many are right, by change.
        parameters: of the net as it is published.
        flop: that it spends on a picture.
        epochs: of the training.
        minutes: they took, beside other work or alone.
        resumed: how often the training was stopped and gone on with.
        processor: of the machine.
        cpus: of it that were allowed.
        versions: of packages.
        date: of the end.
    """

    trial: str
    seed: int
    digest: str
    judged: Literal["validation", "test"]
    pictures: int
    correct: int
    loss: float
    changed: dict[str, int]
    parameters: int
    flop: int
    epochs: int
    minutes: float
    resumed: bool
    processor: str
    cpus: str
    versions: dict[str, str]
    date: str

    @property
    def accuracy(self) -> float:
        """Share that is right, 0 to 1."""
        return self.correct / self.pictures


def read(task: str, folder: Path = FOLDER) -> list[Result]:
    """Returns all results of a task; none where there is no file.

    Raises:
        BenchmarkError: the file is damaged.
    """
    path = _file(task, folder)
    if not path.exists():
        return []
    try:
        return [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines()]
    except msgspec.DecodeError as error:
        raise BenchmarkError(f"{path}: {error}") from error


def add(result: Result, task: str, folder: Path = FOLDER) -> None:
    """Adds a line for a result."""
    with _file(task, folder).open("ab") as file:
        file.write(msgspec.json.encode(asdict(result)) + b"\n")


def of_trial(
    study: Study, trial: Trial, results: Sequence[Result], judged: str = "validation"
) -> list[Result]:
    """Returns the results of a trial as it is now, by seed."""
    found = {
        result.seed: result
        for result in results
        if (result.trial, result.judged) == (trial.name, judged)
        and result.digest == study.digest(trial, result.seed)
    }
    return [found[seed] for seed in sorted(found)]


def table(study: Study, results: Sequence[Result]) -> str:
    """Returns the trials in their order, those that were not run too, as a Markdown table."""
    lines = []
    for trial in study.trials:
        found = of_trial(study, trial, results)
        cells = (*_shares(found), *_costs(found)) if found else ("not run yet", *[""] * 5)
        lines.append((trial.name, trial.why, *cells))
    return grid((*HEADER, *COSTS), lines, {"trial", "why", *HEADER[2:]})


def final_table(study: Study, results: Sequence[Result]) -> str:
    """Returns what the test set says of the chosen recipe, a row a seed, as a Markdown table."""
    found = of_trial(study, study.trial(study.final), results, "test")
    if not found:
        return "No net has been asked about the test set yet."
    names = list(found[0].changed)
    lines = [
        (
            f"{result.seed}",
            f"{result.accuracy:.2%}",
            *(f"{result.changed[name] / result.pictures:.2%}" for name in names),
            f"{result.minutes:.1f}",
        )
        for result in found
    ]
    if len(found) > 1:
        columns = [[result.accuracy for result in found]]
        columns += [[result.changed[name] / result.pictures for result in found] for name in names]
        lines.append(("mean", *(f"{statistics.fmean(column):.2%}" for column in columns), ""))
        spread = (f"{statistics.stdev(column) * 100:.2f}" for column in columns)
        lines.append(("standard deviation", *spread, ""))
    return grid(("seed", "right", *names, "minutes"), lines, {"seed"})


def _shares(found: Sequence[Result]) -> tuple[str, str]:
    """Returns how many are right: the mean, with the spread of several seeds; of changed ones."""
    shares = [result.accuracy for result in found]
    right = f"{statistics.fmean(shares):.2%}"
    if len(found) > 1:
        right += f", standard deviation {statistics.stdev(shares) * 100:.2f}, {len(found)} seeds"
    means = {
        name: statistics.fmean(result.changed[name] / result.pictures for result in found)
        for name in found[0].changed
    }
    worst = min(means, key=lambda name: means[name])
    return right, f"{means[worst]:.2%} ({worst})"


def _costs(found: Sequence[Result]) -> tuple[str, str, str, str]:
    first = found[0]
    minutes = statistics.fmean(result.minutes for result in found)
    return f"{first.parameters:,}", f"{first.flop / 1e6:.1f}", f"{first.epochs}", f"{minutes:.0f}"


def _file(task: str, folder: Path) -> Path:
    return folder / f"{task}.jsonl"
