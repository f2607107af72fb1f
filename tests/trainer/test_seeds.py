"""fit --seeds: mean and spread of several trainings, of which the first is published."""

import csv
import os
import signal
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import onnx
import pytest

from convserve_trainer import pipeline, seeds
from convserve_trainer.bundles import bundle
from convserve_trainer.context import Context
from convserve_trainer.errors import AccuracyError
from convserve_trainer.fitting import chunks
from convserve_trainer.fitting.progress import Progress
from convserve_trainer.main import main
from convserve_trainer.seeds import Result
from tests.trainer.conftest import Small

pytestmark = pytest.mark.usefixtures("undrawn")
STEPS, EPOCHS = 3, 2


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by a number with each training step; a training looks up after every one."""
    seen: list[int] = []
    monkeypatch.setattr(chunks, "CHUNK_S", 0)

    def after(self: Progress, done: int, logs: Mapping[str, float]) -> None:
        seen.append(done)

    monkeypatch.setattr(Progress, "step", after)
    return seen


def _fit(small: Small, models: Path, *more: str) -> int:
    settings = ["--epochs", f"{EPOCHS}", "--steps", f"{STEPS}", "--seed", "7"]
    return main(small.fit(models, *settings, *more))


def _weights(version: Path) -> list[bytes]:
    graph = bundle.read(version)[0].graph
    return [onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer]


def _table(version: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((version / "seeds.csv").read_text().splitlines()))
    for row in rows:
        assert float(row.pop("seconds")) > 0
    return rows


def test_first_net_is_published_with_the_spread_of_all_even_after_a_stop(
    small: Small,
    tmp_path: Path,
    steps: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = tmp_path / "models"
    assert _fit(small, models) == 0
    assert _fit(small, models, "--seeds", "3") == 0
    output = capsys.readouterr().out
    alone, first = (models / "small" / version for version in "12")
    assert _weights(first) == _weights(alone)
    assert not (alone / "seeds.csv").exists()
    assert "seeds" not in bundle.read_manifest(alone).metrics

    rows = _table(first)
    assert [row["seed"] for row in rows] == ["7", "8", "9"]
    accuracies = [float(row["accuracy"]) for row in rows]
    manifest = bundle.read_manifest(first)
    assert manifest.training.seed == 7
    assert manifest.metrics["accuracy"] == accuracies[0]
    assert manifest.metrics["seeds"] == 3
    assert manifest.metrics["accuracy_mean"] == pytest.approx(statistics.mean(accuracies))
    assert manifest.metrics["accuracy_sd"] == pytest.approx(statistics.stdev(accuracies))
    for row in rows:
        assert f"seed {row['seed']}: accuracy {float(row['accuracy']):.4f} (" in output
    assert f"accuracy of 3 seeds: mean {statistics.mean(accuracies):.4f}, " in output
    assert os.listdir(models) == ["small"], "no folder of a run is left"

    # Stopped in the second epoch of the second seed, and gone on with.
    del steps[:]
    report_step = Progress.step

    def stop(self: Progress, done: int, logs: Mapping[str, float]) -> None:
        report_step(self, done, logs)
        if len(steps) == (EPOCHS + 1) * STEPS + 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "step", stop)
        assert _fit(small, models, "--seeds", "3") == 130
    stopped = capsys.readouterr().err
    assert "stopped; 1 of 2 epochs of seed 8 and 1 step of the next are finished" in stopped
    assert "go on with the same command and --resume" in stopped
    assert _fit(small, models, "--seeds", "3", "--resume") == 0
    assert len(steps) == 3 * EPOCHS * STEPS, "no step is done twice"
    resumed = models / "small" / "3"
    assert _weights(resumed) == _weights(first)
    assert _table(resumed) == rows
    assert os.listdir(models) == ["small"]


def test_named_folder_keeps_the_seeds_for_more_of_them(
    small: Small, tmp_path: Path, steps: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    models, run = tmp_path / "models", tmp_path / "run"
    named = ["--run", str(run)]
    assert _fit(small, models, *named, "--seeds", "2") == 0
    assert sorted(os.listdir(run)) == ["seed-7", "seed-8"]
    assert sorted(os.listdir(run / "seed-8")) == [
        *("checkpoints", "history.csv", "result.json", "tensorboard"),
    ]
    assert _fit(small, models, *named, "--seeds", "2") == 1
    assert f"{run} holds a training, kept up to epoch 2" in capsys.readouterr().err
    del steps[:]
    assert _fit(small, models, *named, "--seeds", "3", "--resume") == 0
    assert len(steps) == EPOCHS * STEPS, "the third seed alone"
    assert "; finished before\n" in capsys.readouterr().out
    before, after = (_table(models / "small" / version) for version in "12")
    assert after[:2] == before

    (run / "seed-8" / "result.json").write_text("{")
    assert _fit(small, models, *named, "--seeds", "3", "--resume") == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"convserve-train: {run / 'seed-8' / 'result.json'} is damaged (")

    del steps[:]
    assert _fit(small, models, "--seeds", "3", "--unless-published") == 0
    assert _fit(small, models, "--seeds", "2", "--unless-published", "--epochs", "1") == 0
    output = capsys.readouterr().out
    assert "2/model.onnx is published already, from these settings and data\n" in output
    assert "2/model.onnx differs from this training in: epochs, seeds\n" in output
    assert len(steps) == 2 * STEPS


def test_floor_is_for_the_first_seed_and_found_out_before_the_others(
    small: Small, tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = ["--min-accuracy", "1", "--epochs", "1"]
    accuracies = iter([0.9])
    check = pipeline.check
    floors: list[float] = []

    def below(context: Context) -> None:
        recipe = context.recipe
        floors.append(recipe.min_accuracy)
        if recipe.min_accuracy > next(accuracies, 0):
            raise AccuracyError("below")
        context.recipe = msgspec.structs.replace(recipe, min_accuracy=0.0)
        check(context)

    monkeypatch.setattr(pipeline, "check", below)
    assert _fit(small, tmp_path / "models", "--seeds", "3", *floor) == 1
    assert len(steps) == STEPS
    assert floors == [1.0]

    accuracies = iter([1.0])
    assert _fit(small, tmp_path / "models", "--seeds", "2", *floor) == 0
    assert floors == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "0"], "--seeds: expected 1 or more, got 0"),
        (
            ["--seeds", "2", "--seed", f"{2**32 - 1}"],
            f"--seed: expected {2**32 - 1} or less, got {2**32}",
        ),
    ],
)
def test_wrong_counts_are_found_before_the_data_are_read(
    more: list[str],
    message: str,
    small: Small,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nowhere = replace(small, data=tmp_path / "no data")
    assert _fit(nowhere, tmp_path / "models", *more) == 2
    assert message in capsys.readouterr().err


def test_spread_is_that_of_a_sample() -> None:
    results = [Result(seed, accuracy, 0, 0, 1, 1) for seed, accuracy in enumerate((0.5, 0.7, 0.9))]
    assert str(seeds.spread(results)) == (
        "mean 0.7000, standard deviation 0.2000, 0.5000 to 0.9000"
    )
