import io
import signal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.datasets import mnist
from convserve_trainer.datasets.mnist import Dataset
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import CheckpointError, DivergedError, Interrupted
from convserve_trainer.fitting import chunks, messages
from convserve_trainer.fitting.fit import _targets, fit
from convserve_trainer.fitting.tensorflow_steps import Steps
from convserve_trainer.host import signals
from convserve_trainer.host.signals import Stopped
from convserve_trainer.nets import keras_backend, models
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import checkpoint, run_key
from convserve_trainer.runs.run_folder import Run, found
from convserve_trainer.runs.training_state import Position, Training

LECTURE = recipe_files.find("lecture", "digits")

#: The lecture's settings for a net that TensorFlow traces in a moment.
SMALL = LECTURE.override(net=[{"layer": "conv", "filters": 4, "stride": 2}, {"layer": "flatten"}])

LIMIT = 200  # the last batch is smaller than the others


@pytest.fixture
def single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a training look up after every step."""
    monkeypatch.setattr(chunks, "CHUNK_S", 0)


def _recipe(epochs: int, seed: int = 3) -> Recipe:
    return SMALL.override(epochs=epochs, seed=seed, limit=LIMIT)


def _run(folder: Path, recipe: Recipe, seconds: float = 60) -> Run:
    return Run(folder, run_key.make_run_key(recipe, "0" * 64), seconds, named=True)


def _resumed(folder: Path, recipe: Recipe) -> Training:
    with _run(folder, recipe) as run:
        return run.newest(recipe.epochs, print)


def _built(recipe: Recipe) -> Any:
    return models.build(
        recipe, InputSpec(height=28, width=28, channels=1), classes=10, pictures=60_000
    )


def _data(dataset: Dataset) -> Data:
    return mnist.make_data(dataset.limited(LIMIT))


def _fit(
    dataset: Dataset,
    folder: Path,
    recipe: Recipe,
    training: Training | None = None,
    seconds: float = 60,
) -> str:
    """Returns what was printed."""
    out = io.StringIO()
    with _run(folder, recipe, seconds) as run:
        fit(training or Training(_built(recipe)), _data(dataset), recipe, run, out)
    return out.getvalue()


def _trained(
    dataset: Dataset, folder: Path, recipe: Recipe, training: Training | None = None
) -> list[npt.NDArray[np.float32]]:
    training = training or Training(_built(recipe))
    _fit(dataset, folder, recipe, training)
    weights: list[npt.NDArray[np.float32]] = training.model.get_weights()
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
    training = Training(_built(recipe))
    after = _trained(dataset, tmp_path, recipe, training)
    assert not any(_same(before, after))
    losses = [epoch.loss for epoch in training.history.epochs]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]


def test_same_seed_gives_the_same_weights_and_another_does_not(
    dataset: Dataset, tmp_path: Path
) -> None:
    first = _trained(dataset, tmp_path / "1", _recipe(epochs=1, seed=3))
    assert all(_same(first, _trained(dataset, tmp_path / "2", _recipe(epochs=1, seed=3))))
    other = _same(first, _trained(dataset, tmp_path / "3", _recipe(epochs=1, seed=4)))
    assert not any(other)


def test_resumed_training_ends_with_the_weights_of_one_that_never_stopped(
    dataset: Dataset, tmp_path: Path
) -> None:
    whole = _trained(dataset, tmp_path / "whole", _recipe(epochs=3))
    part = _trained(dataset, tmp_path / "part", _recipe(epochs=2))
    resumed = _resumed(tmp_path / "part", _recipe(epochs=3))
    assert not any(_same(part, whole))
    assert all(_same(_trained(dataset, tmp_path / "part", _recipe(epochs=3), resumed), whole))


@pytest.mark.usefixtures("single_steps")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_within_an_epoch_keeps_the_step_it_met(
    number: signal.Signals,
    status: int,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _recipe(epochs=3)
    whole = _trained(dataset, tmp_path / "whole", recipe)
    second: list[Any] = []

    def second_step_of_second_epoch(self: Any, done: int, logs: Any) -> None:
        if self._epoch == 1 and done == 2:
            signal.raise_signal(number)
            second.extend(map(signal.getsignal, signals.SIGNALS))

    handlers = [signal.getsignal(each) for each in signals.SIGNALS]
    with monkeypatch.context() as patched:
        patched.setattr(
            "convserve_trainer.fitting.progress.Progress.step", second_step_of_second_epoch
        )
        with pytest.raises(Stopped) as caught:
            _fit(dataset, tmp_path / "part", recipe)
    assert caught.value.status == status
    assert second == [signal.SIG_DFL] * 2, "a second one kills"
    assert [signal.getsignal(each) for each in signals.SIGNALS] == handlers
    assert found(tmp_path / "part") == [Position(1, 2), Position(1)]
    resumed = _resumed(tmp_path / "part", recipe)
    assert resumed.position == Position(1, 2)
    assert [epoch.epoch for epoch in resumed.history.epochs] == [1]
    assert all(_same(_trained(dataset, tmp_path / "part", recipe, resumed), whole))


@pytest.mark.usefixtures("single_steps")
def test_training_goes_on_from_any_step_with_dropout_and_augmentation(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(epochs=2)
    whole = Training(_random(recipe))
    _fit(dataset, tmp_path / "whole", recipe, whole)

    def stop(self: Any, done: int, logs: Any) -> None:
        if self._epoch == 1 and done == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("convserve_trainer.fitting.progress.Progress.step", stop)
        with pytest.raises(Stopped):
            _fit(dataset, tmp_path / "part", recipe, Training(_random(recipe)))
    resumed = _resumed(tmp_path / "part", recipe)
    assert resumed.position == Position(1, 3)
    _fit(dataset, tmp_path / "part", recipe, resumed)
    assert all(_same(resumed.model.get_weights(), whole.model.get_weights()))
    figures = [
        [(epoch.loss, epoch.accuracy, epoch.learning_rate) for epoch in each.history.epochs]
        for each in (resumed, whole)
    ]
    assert figures[0] == figures[1]
    assert figures[0][0][2] > figures[0][1][2], "the schedule's"


def _random(recipe: Recipe) -> Any:
    """A net whose training draws numbers, and whose learning rate falls from step to step."""
    keras = keras_backend.load()
    keras.utils.set_random_seed(recipe.seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.RandomTranslation(0.1, 0.1),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, decay_steps=4, decay_rate=0.5)
    optimizer = keras.optimizers.Adam(rate)
    model.compile(optimizer=optimizer, loss=recipe.loss, metrics=["accuracy"])
    return model


@pytest.mark.usefixtures("single_steps")
def test_disk_that_refuses_checkpoints_is_a_warning_and_training_goes_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(epochs=3)
    save = checkpoint.save

    def full(training: Training, *rest: Any) -> None:
        if training.position in {(1, 2), (2, 0)}:
            raise OSError(28, "No space left on device")
        save(training, *rest)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "due", lambda self: True)
        output = _fit(dataset, tmp_path, recipe)
    warnings = [line for line in output.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f"warning: the checkpoint of {what} cannot be kept in {tmp_path}: No space left on device; "
        f"free some space there; --resume goes on after epoch 2, step {step}"
        for what, step in (("epoch 2, step 2", 1), ("epoch 2", 3))
    ]
    assert found(tmp_path) == [Position(3), Position(2, 3)]


@pytest.mark.usefixtures("single_steps")
@pytest.mark.parametrize(
    ("seconds", "epoch", "reason", "kept", "there"),
    [
        (60, 1, "the loss is nan in step 3 of epoch 1", "nothing is kept", []),
        (
            0,
            1,
            "weights are not finite in step 2 of epoch 1",
            "epoch 1, step 1 is kept in {}",
            [Position(0, 1)],
        ),
        (
            60,
            3,
            "the loss is nan in step 3 of epoch 3",
            "finished epochs are kept in {}: --resume --epochs 2 publishes them",
            [Position(2), Position(1)],
        ),
    ],
)
def test_training_that_diverges_ends_and_keeps_what_was_good(
    seconds: float,
    epoch: int,
    reason: str,
    kept: str,
    there: list[Position],
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _recipe(epochs=4)
    training = Training(_built(recipe))

    def spoil(self: Any, done: int, logs: Any) -> None:
        if (self._epoch, done) == (epoch - 1, 2):
            weights = training.model.get_weights()
            training.model.set_weights([np.full_like(each, np.nan) for each in weights])

    monkeypatch.setattr("convserve_trainer.fitting.progress.Progress.step", spoil)
    with pytest.raises(DivergedError) as caught:
        _fit(dataset, tmp_path, recipe, training, seconds)
    assert str(caught.value) == (
        f"{reason}, at a learning rate of 0.001; {kept.format(tmp_path)}; another --seed or a "
        "larger --batch-size may do better"
    )
    assert found(tmp_path) == there
    if there:
        assert all(np.isfinite(w).all() for w in _resumed(tmp_path, recipe).model.get_weights())


COSINE = {"schedule": "cosine"}


def _stopped_after(epochs: int, recipe: Recipe, folder: Path) -> str:
    run = _run(folder, recipe)
    run.kept = Position(epochs)
    with pytest.raises(Interrupted) as caught, messages.explain_stop(recipe, run):
        raise Stopped(signal.SIGINT)
    return str(caught.value)


def test_advice_after_a_stop_is_one_that_works(dataset: Dataset, tmp_path: Path) -> None:
    recipe = _recipe(epochs=4)
    message = _stopped_after(2, recipe, tmp_path)
    assert message.endswith(
        "\ngo on with the same command and --resume, or publish what there is with --resume "
        "--epochs 2"
    )
    falling = recipe.override(COSINE)
    message = _stopped_after(2, falling, tmp_path)
    assert message.endswith(
        "\ngo on with the same command and --resume; its learning rate falls up to epoch 4, so "
        "that fewer epochs are another training, from the start"
    )
    for each, works in ((recipe, True), (falling, False)):
        folder = tmp_path / each.schedule
        _fit(dataset, folder, each.override(epochs=2) if works else each)
        shorter = each.override(epochs=2)
        if works:
            assert _resumed(folder, shorter).position == Position(2)
            continue
        with pytest.raises(CheckpointError, match=r"epochs was 4, is 2 \(a cosine's learning rate"):
            _resumed(folder, shorter)


def test_loss_that_is_not_finite_is_named_with_its_step_within_a_chunk(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    train, targets, asked = Steps.train, _targets, count(1)

    def counted(self: Steps, batches: Any) -> Any:
        sizes.append(len(batches))
        return train(self, batches)

    def third_of_second_epoch_spoilt(*of: Any) -> Any:
        return targets(*of) * (np.nan if next(asked) == 4 + 3 else 1)

    monkeypatch.setattr(Steps, "train", counted)
    monkeypatch.setattr("convserve_trainer.fitting.fit._targets", third_of_second_epoch_spoilt)
    monkeypatch.setattr(chunks, "CHUNK_S", 1e6)
    with pytest.raises(DivergedError, match="the loss is nan in step 3 of epoch 2, at a learning"):
        _fit(dataset, tmp_path, _recipe(epochs=3))
    assert sizes == [1, 2, 1, 3]
    assert found(tmp_path) == [Position(1)]
