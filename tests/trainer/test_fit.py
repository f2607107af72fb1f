import io
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer import checkpoint as checkpoints
from convserve_trainer import digits, models, stops
from convserve_trainer.checkpoint import Checkpoint
from convserve_trainer.errors import CheckpointError, DivergedError
from convserve_trainer.fit import _validate, fit
from convserve_trainer.history import History
from convserve_trainer.mnist import Dataset
from convserve_trainer.pictures import ArrayPictures, Data
from convserve_trainer.recipes import LECTURE, Recipe
from convserve_trainer.stops import Stopped

LIMIT = 200  # the last batch is smaller than the others


def _recipe(epochs: int, seed: int = 3) -> Recipe:
    return LECTURE.override(epochs=epochs, seed=seed, limit=LIMIT)


def _checkpoint(folder: Path, recipe: Recipe) -> Checkpoint:
    return checkpoints.of(folder, "mnist", recipe, "0" * 64, LIMIT)


def _built(recipe: Recipe) -> Any:
    return models.build(recipe, InputSpec(height=28, width=28, channels=1), classes=10)


def _data(dataset: Dataset) -> Data:
    return digits.data(dataset.limited(LIMIT))


def _trained(
    dataset: Dataset, folder: Path, recipe: Recipe, state: tuple[Any, History] | None = None
) -> list[npt.NDArray[np.float32]]:
    model, history = state or (_built(recipe), History())
    checkpoint = _checkpoint(folder, recipe)
    fit(model, _data(dataset), recipe, checkpoint, history, io.StringIO())
    weights: list[npt.NDArray[np.float32]] = model.get_weights()
    return weights


def _same(one: list[npt.NDArray[np.float32]], other: list[npt.NDArray[np.float32]]) -> list[bool]:
    return [np.array_equal(a, b) for a, b in zip(one, other, strict=True)]


def test_lecture_net_has_93322_parameters() -> None:
    model = _built(LECTURE)
    assert model.count_params() == 93_322
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    assert [layer.name for layer in model.layers] == [
        "rescaling",
        "conv2d",
        "max_pooling2d",
        "conv2d_1",
        "max_pooling2d_1",
        "conv2d_2",
        "flatten",
        "dense",
        "dense_1",
    ]


def test_optimizer_is_keras_rmsprop_with_its_default_rate() -> None:
    keras = pytest.importorskip("keras")
    optimizer = _built(LECTURE).optimizer
    assert isinstance(optimizer, keras.optimizers.RMSprop)
    default = keras.optimizers.RMSprop(name=optimizer.name).get_config()
    config = optimizer.get_config()
    assert config.pop("learning_rate") == pytest.approx(default.pop("learning_rate"))
    assert config == default


def test_training_changes_every_parameter_and_lowers_the_loss(
    dataset: Dataset, tmp_path: Path
) -> None:
    recipe = _recipe(epochs=3)
    before = _built(recipe).get_weights()
    history = History()
    after = _trained(dataset, tmp_path, recipe, (_built(recipe), history))
    assert not any(_same(before, after))
    losses = [epoch.loss for epoch in history.epochs]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]


def test_same_seed_gives_the_same_weights_and_another_does_not(
    dataset: Dataset, tmp_path: Path
) -> None:
    first = _trained(dataset, tmp_path, _recipe(epochs=1, seed=3))
    assert all(_same(first, _trained(dataset, tmp_path, _recipe(epochs=1, seed=3))))
    other = _same(first, _trained(dataset, tmp_path, _recipe(epochs=1, seed=4)))
    assert not any(other)


def test_resumed_training_ends_with_the_weights_of_one_that_never_stopped(
    dataset: Dataset, tmp_path: Path
) -> None:
    whole = _trained(dataset, tmp_path / "whole", _recipe(epochs=3))
    part = _trained(dataset, tmp_path / "part", _recipe(epochs=2))
    resumed = _checkpoint(tmp_path / "part", _recipe(epochs=3)).load()
    assert not any(_same(part, whole))
    assert all(_same(_trained(dataset, tmp_path / "part", _recipe(epochs=3), resumed), whole))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_within_an_epoch_keeps_the_last_finished_one(
    number: signal.Signals,
    status: int,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _recipe(epochs=3)
    expected = _trained(dataset, tmp_path / "expected", _recipe(epochs=1))
    checkpoint = _checkpoint(tmp_path, recipe)

    second: list[Any] = []

    def second_step_of_second_epoch(self: Any, done: int, logs: Any) -> None:
        if self._epoch == 1 and done == 2:
            signal.raise_signal(number)
            second.extend(map(signal.getsignal, stops.SIGNALS))

    monkeypatch.setattr("convserve_trainer.progress.Progress.step", second_step_of_second_epoch)
    handlers = [signal.getsignal(each) for each in stops.SIGNALS]
    model = _built(recipe)
    with pytest.raises(Stopped) as caught:
        fit(model, _data(dataset), recipe, checkpoint, History(), io.StringIO())
    assert caught.value.status == status
    assert second == [signal.SIG_DFL] * 2, "a second one kills"
    kept, history = checkpoint.load()
    assert [epoch.epoch for epoch in history.epochs] == [1]
    assert checkpoint.epochs(kept) == 1
    assert all(_same(kept.get_weights(), expected))
    assert [signal.getsignal(each) for each in stops.SIGNALS] == handlers


@pytest.mark.parametrize(
    ("epoch", "kept"),
    [
        (1, "no epoch is finished, so nothing is kept"),
        (3, "finished epochs are kept: --resume --epochs 2 publishes them"),
    ],
)
@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_loss_that_is_not_finite_ends_the_training_and_keeps_the_epochs_before(
    epoch: int,
    kept: str,
    loss: float,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _recipe(epochs=4)
    checkpoint = _checkpoint(tmp_path, recipe)
    model = _built(recipe)
    real, calls = model.train_on_batch, []

    def train_on_batch(*batch: Any, **options: Any) -> dict[str, Any]:
        calls.append(1)
        figures: dict[str, Any] = real(*batch, **options)
        bad = len(calls) == checkpoint.steps * (epoch - 1) + 2
        return figures | ({"loss": np.float32(loss)} if bad else {})

    monkeypatch.setattr(model, "train_on_batch", train_on_batch)
    stream = io.StringIO()
    with pytest.raises(DivergedError) as caught:
        fit(model, _data(dataset), recipe, checkpoint, History(), stream)
    assert str(caught.value) == (
        f"the loss is {loss:g} in step 2 of epoch {epoch}, at a learning rate of 0.001; {kept}; "
        "another --seed or a larger --batch-size may do better"
    )
    assert stream.getvalue().endswith("\n")
    assert checkpoint.path.exists() == (epoch > 1)
    if epoch > 1:
        assert checkpoint.epochs(checkpoint.load()[0]) == epoch - 1


class _Counting:
    """A net whose figures are the labels' mean; stands in for Keras's."""

    output_shape = (None, 10)

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def test_on_batch(self, pixels: Any, targets: Any, return_dict: bool) -> dict[str, float]:
        self.sizes.append(len(pixels))
        mean = float(targets.argmax(axis=1).mean())
        return {"loss": mean, "accuracy": mean / 10}


@pytest.mark.parametrize(
    ("steps", "sizes"), [(2, [64, 64]), (3, [64, 64, 64]), (9, [64, 64, 64, 8])]
)
def test_validation_is_the_mean_over_the_first_pictures_at_most_all(
    dataset: Dataset, steps: int, sizes: list[int]
) -> None:
    pictures = ArrayPictures(dataset.test_images[:200], dataset.test_labels[:200])
    data = replace(_data(dataset), held_out=pictures)
    model = _Counting()
    found = _validate(model, data, LECTURE.override(validation_steps=steps))
    assert model.sizes == sizes
    mean = dataset.test_labels[: sum(sizes)].mean()
    assert found == pytest.approx({"loss": mean, "accuracy": mean / 10})


def test_checkpoint_of_other_settings_or_data_is_another(tmp_path: Path) -> None:
    path = _checkpoint(tmp_path, LECTURE).path
    assert _checkpoint(tmp_path, LECTURE.override(epochs=9, min_accuracy=0.1)).path == path
    assert _checkpoint(tmp_path, LECTURE.override(seed=2)).path != path
    assert _checkpoint(tmp_path, LECTURE.override(batch_size=65)).path != path
    assert checkpoints.of(tmp_path, "mnist", LECTURE, "1" * 64, LIMIT).path != path
    assert checkpoints.of(tmp_path, "other", LECTURE, "0" * 64, LIMIT).path != path


def test_checkpoint_that_is_damaged_is_named(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path, LECTURE)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        checkpoint.load()
    checkpoint.path.parent.mkdir()
    checkpoint.path.write_bytes(b"PK\3\4")
    with pytest.raises(CheckpointError, match=rf"{checkpoint.path} is damaged \(.*\); remove it"):
        checkpoint.load()


def test_failing_save_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _checkpoint(tmp_path, LECTURE)
    model = _built(LECTURE)
    checkpoint.save(model, History())
    before = checkpoint.path.read_bytes()

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save", full)
    kept = rf"the epoch cannot be kept in {tmp_path}/.unfinished: No space left .*; --resume then"
    with pytest.raises(CheckpointError, match=kept):
        checkpoint.save(model, History())
    assert checkpoint.path.read_bytes() == before
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]
