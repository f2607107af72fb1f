"""`fit --calibrate`: what is kept out, and what becomes of the last layer."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_trainer.bundles import bundle
from convserve_trainer.datasets import splits
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.datasets.pictures import ArrayPictures
from convserve_trainer.evaluation import calibrate, predict, temperature
from convserve_trainer.main import main
from convserve_trainer.nets import keras_backend, models
from tests.trainer import idx_files


def _net(units: int, activation: str) -> Any:
    keras = keras_backend.load()
    keras.utils.set_random_seed(4)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4, 4, 1), dtype="uint8"),
            layers.Rescaling(1 / 64),
            layers.Flatten(),
            layers.Dense(units, activation=activation),
        ]
    )


@pytest.mark.parametrize(("units", "activation"), [(3, "softmax"), (1, "sigmoid")])
def test_last_layer_takes_the_temperature(units: int, activation: str) -> None:
    model, generator = _net(units, activation), np.random.default_rng(1)
    pixels = generator.integers(0, 256, (200, 4, 4, 1), np.uint8)
    before = predict.by_keras(models.with_class_columns(model), pixels)
    labels = generator.integers(0, max(units, 2), 200)
    labels[:120] = before[:120].argmax(axis=1)
    found = calibrate.calibrate(model, ArrayPictures(pixels, labels))
    after = predict.by_keras(models.with_class_columns(model), pixels)
    assert found.temperature == pytest.approx(temperature.fit(before, labels))
    assert found.temperature != pytest.approx(1, abs=0.05)
    assert after == pytest.approx(
        temperature.apply_temperature(before, found.temperature), abs=1e-6
    )
    assert found.before.correct == found.after.correct
    assert found.after.loss < found.before.loss


def test_what_is_kept_out_is_not_trained_on() -> None:
    pixels = np.arange(400, dtype=np.uint16).view(np.uint8).reshape(400, 2, 1, 1)
    train, unseen = splits.split_calibration(ArrayPictures(pixels, np.arange(400) % 4))
    assert (len(train), len(unseen)) == (360, 40)
    assert set(train.numbers) | set(unseen.numbers) == set(range(400))
    assert np.bincount(unseen.labels).tolist() == [10] * 4
    assert [splits.calibration_count(count) for count in (60_000, 50_000, 1_280)] == [
        5_000,
        5_000,
        128,
    ]


@pytest.mark.usefixtures("undrawn")
def test_fit_with_calibrate_publishes_its_temperature(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = idx_files.write_arrays(
        tmp_path / "digits",
        (dataset.train_images[:640, ..., 0], dataset.train_labels[:640]),
        (dataset.test_images[:100, ..., 0], dataset.test_labels[:100]),
    )
    command = ["fit", "digits", "--data", str(digits), "--models", str(tmp_path / "models")]
    command += ["--epochs", "1", "--calibrate"]
    assert main(command) == 0
    output = capsys.readouterr().out
    trained = re.search(r"(\d+) pictures to train on, ", output)
    kept = re.search(r"calibration     (\d+) pictures, kept out of the training for a", output)
    assert trained is not None
    assert kept is not None
    assert int(trained[1]) + int(kept[1]) == 640
    assert int(kept[1]) == pytest.approx(64, abs=5), "a tenth of each class, rounded"
    manifest = bundle.read_manifest(tmp_path / "models" / "digits")
    fitted = manifest.training.temperature
    assert (
        f"temperature {fitted:.3f}, fitted on {kept[1]} pictures kept out of the training" in output
    )
    assert temperature.LEAST < fitted < temperature.LARGEST
    assert '"calibrate":true' in manifest.training.recipe_json
    assert main([*command, "--unless-published"]) == 0
    assert "is published already" in capsys.readouterr().out
