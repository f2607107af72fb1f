"""Measures what a net with ImageNet's weights makes of few photographs: accuracy, minutes, spread.

    python -m benchmarks.training.pretrained lite0.weights.h5 --data cats_dogs

`python -m benchmarks.training.lite0_weights` writes the file. Each seed is a training of the recipe
lite0.toml beside this file, by the command convserve-train fit, published and checked as any. The
held-out photographs choose nothing: the weights of the last epoch are published.
"""

import argparse
import resource
import shlex
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.command import add_run_options, execute, new_parser, tell
from benchmarks.harness.report import heading, machine, write_json
from benchmarks.harness.table import grid
from benchmarks.training import runs

RECIPE = Path(__file__).with_name("lite0.toml")
_TIMES = ("s an epoch", "minutes a seed", "of the processor")
_PACKAGES = ("convserve", "keras", "tensorflow", "onnxruntime")


@dataclass(frozen=True)
class Trained:
    """One seed."""

    seed: int
    #: On the held-out photographs, 0 to 1.
    accuracy: float
    #: Of an epoch, and of the whole command with evaluation and publishing.
    epoch_s: float
    whole_s: float
    #: Processor time of the whole command, which other work on the machine hardly changes.
    cpu_s: float


def _parser() -> argparse.ArgumentParser:
    result = new_parser("benchmarks.training.pretrained", __doc__)
    result.add_argument("weights", metavar="FILE.weights.h5", type=Path)
    result.add_argument(
        "--data", metavar="DIR", type=Path, required=True,
        help="folder with train and validation",
    )  # fmt: skip
    result.add_argument(
        "--fit", default="", metavar="OPTIONS", help="more options of convserve-train fit"
    )
    add_run_options(result, rounds=3, measured="recipe, each with another seed")
    return result


def train(weights: Path, data: Path, seed: int, more: list[str]) -> Trained:
    """Trains with a seed, and publishes into a folder that is removed.

    Raises:
        BenchmarkError: the training failed.
    """
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
        command = [
            *(sys.executable, "-m", "convserve_trainer.main", "fit", "photos"),
            *("--data", str(data.resolve()), "--recipe", str(RECIPE), "--models", folder),
            *("--set", f"net.0.weights={weights.resolve()}", "--seed", str(seed), *more),
        ]
        before = _cpu_s()
        run = runs.watch(command)
        return Trained(seed, run.accuracy, run.epoch_s, run.whole_s, _cpu_s() - before)


def _cpu_s() -> float:
    """Returns the processor time of the processes that have ended, s."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(trained: list[Trained]) -> list[str]:
    """Returns the row of the table."""
    shares = [100 * each.accuracy for each in trained]
    deviation = statistics.stdev(shares) if len(shares) > 1 else 0.0
    return [
        f"{statistics.mean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})",
        f"{deviation:.2f}",
        f"{len(trained)}",
        f"{statistics.mean(each.epoch_s for each in trained):.0f}",
        *(
            f"{statistics.mean(seconds) / 60:.1f}"
            for seconds in zip(*((each.whole_s, each.cpu_s) for each in trained), strict=True)
        ),
    ]


def run(arguments: argparse.Namespace) -> None:
    """Trains with each seed, and prints the table."""
    more = shlex.split(arguments.fit)
    trained = []
    for seed in range(1, arguments.rounds + 1):
        trained.append(train(arguments.weights, arguments.data, seed, more))
        tell(f"seed {seed}: {trained[-1].accuracy:.4f} in {trained[-1].whole_s / 60:.1f} minutes")
    on = machine(_PACKAGES)
    details = (f"recipe {RECIPE.name} {arguments.fit}".strip(), f"data {arguments.data.name}")
    print(heading(on, "one training at a time", details), "\n")
    header = ("right of 100, mean (min to max)", "standard deviation", "seeds")
    print(grid([*header, *_TIMES], [row(trained)], ()))
    write_json(arguments.json, on, {"fit": arguments.fit}, trained=trained)


if __name__ == "__main__":
    sys.exit(execute(_parser(), run))
