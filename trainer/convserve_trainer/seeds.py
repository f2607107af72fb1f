"""The same training with several seeds: how much of an accuracy is luck."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import msgspec

from convserve_bundle.contract import MODEL_FILE
from convserve_trainer.bundles import bundle, manifests
from convserve_trainer.errors import CheckpointError, UsageError
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.wording import counted

TABLE = "seeds.csv"
METRICS = ("accuracy_mean", "accuracy_sd", "seeds")  # of a manifest


@dataclass(frozen=True)
class Result:
    """What became of one seed.

    Attributes:
        seed: of the training.
        accuracy: share of the held-out pictures that are right, 0 to 1, through ONNX Runtime.
        correct: how many that is.
        loss: on them, nats.
        epochs: that were trained.
        seconds: they took.
    """

    seed: int
    accuracy: float
    correct: int
    loss: float
    epochs: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: accuracy {self.accuracy:.4f} ({self.correct:,} right), loss "
            f"{self.loss:.4f}, {counted(self.epochs, 'epoch')} in {self.seconds:.1f} s"
        )


COLUMNS = tuple(column.name for column in fields(Result))


@dataclass(frozen=True)
class Spread:
    """Of the accuracies, shares from 0 to 1.

    Attributes:
        mean: of them.
        sd: sample standard deviation.
        least: of them.
        most: of them.
    """

    mean: float
    sd: float
    least: float
    most: float

    def __str__(self) -> str:
        return (
            f"mean {self.mean:.4f}, standard deviation {self.sd:.4f}, {self.least:.4f} to "
            f"{self.most:.4f}"
        )


def recipes(recipe: Recipe, count: int) -> list[Recipe]:
    """Returns the recipe with its own seed and with the next ones.

    The accuracy floor is for the first alone, which is what will be published.

    Args:
        recipe: with all overrides.
        count: of seeds.

    Raises:
        UsageError: the count is none, or a seed is too large.
    """
    if count < 1:
        raise UsageError(f"--seeds: expected 1 or more, got {count}")
    others = range(recipe.seed + 1, recipe.seed + count)
    return [recipe, *(recipe.override(seed=seed, min_accuracy=0.0) for seed in others)]


def result(recipe: Recipe, content: bytes, epochs: int, seconds: float) -> Result:
    """Returns the result that a bundle says of itself.

    Args:
        recipe: of the training.
        content: of model.onnx.
        epochs: that were trained.
        seconds: they took.
    """
    metrics = bundle.loaded(content, MODEL_FILE)[1].metrics
    return Result(
        seed=recipe.seed,
        accuracy=metrics["accuracy"],
        correct=int(metrics["correct"]),
        loss=metrics["loss"],
        epochs=epochs,
        seconds=seconds,
    )


def read_result(values: object, where: Path) -> Result:
    """Returns a result that `dataclasses.asdict` made.

    Raises:
        CheckpointError: it is none; the message says where.
    """
    try:
        return msgspec.convert(values, Result, strict=True)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"the result in {where} is damaged ({error}); remove it") from error


def spread(results: Sequence[Result]) -> Spread:
    """Returns the spread of two results or more."""
    accuracies = [each.accuracy for each in results]
    return Spread(
        statistics.fmean(accuracies),
        statistics.stdev(accuracies),
        min(accuracies),
        max(accuracies),
    )


def format_table(results: Sequence[Result]) -> str:
    """Returns a table of two results or more, and their spread, for a terminal."""
    rows = [f"{'seed':>10}  accuracy   right    loss  epochs  seconds"]
    rows += [
        f"{each.seed:>10}  {each.accuracy:>8.4f}  {each.correct:>6}  {each.loss:.4f}  "
        f"{each.epochs:>6}  {each.seconds:>7.1f}"
        for each in results
    ]
    rows.append(f"accuracy of {len(results)} seeds: {spread(results)}")
    return "\n".join(rows)


def format_csv(results: Sequence[Result]) -> str:
    """Returns the content of seeds.csv; figures are not rounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(each) for each in results)
    return text.getvalue()


def with_results(content: bytes, results: Sequence[Result]) -> bytes:
    """Returns a bundle whose manifest has two results or more, its own first.

    Args:
        content: of model.onnx.
        results: of all seeds.
    """
    model, manifest = bundle.loaded(content, MODEL_FILE)
    found = spread(results)
    figures = (found.mean, found.sd, float(len(results)))
    manifest.metrics.update(dict(zip(METRICS, figures, strict=True)))
    model.ClearField("metadata_props")
    manifests.attach(manifest, model)
    serialized: bytes = model.SerializeToString()
    return serialized
