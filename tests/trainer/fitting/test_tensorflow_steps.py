"""Steps that run together do what steps do alone, bit for bit, and what Keras does."""

from typing import Any

import numpy as np
import pytest

from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.fitting.tensorflow_steps import Steps
from convserve_trainer.nets import keras_backend

SIDE, CLASSES = 6, 3


def _net(optimizer: Any = None, loss: Any = "categorical_crossentropy") -> Any:
    """A net with all that changes from step to step: random states, statistics, a schedule."""
    keras = keras_backend.load()
    keras.backend.clear_session()  # so that names are the same
    keras.utils.set_random_seed(5)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    if optimizer is None:
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, decay_steps=2, decay_rate=0.5)
        optimizer = keras.optimizers.Adam(rate, use_ema=True, ema_overwrite_frequency=3)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    return model


def _batches(*sizes: int) -> list[Any]:
    generator = np.random.default_rng(1)
    return [
        (
            generator.integers(0, 256, (size, SIDE, SIDE, 1), np.uint8),
            np.eye(CLASSES, dtype=np.float32)[generator.integers(0, CLASSES, size)],
        )
        for size in sizes
    ]


def _state(model: Any) -> dict[str, Any]:
    """Everything that training changes, by its path."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"{at} {variable.path}": variable.numpy() for at, variable in enumerate(variables)}


def _restore(model: Any, state: dict[str, Any]) -> None:
    """Brings everything back to what it was: another net would be traced for a second."""
    variables = [*model.variables, *model.optimizer.variables]
    for variable, value in zip(variables, state.values(), strict=True):
        variable.assign(value)


def _run(steps: Steps, batches: list[Any], *sizes: int) -> list[dict[str, float]]:
    """Trains in chunks of these sizes; returns the figures."""
    assert sum(sizes) == len(batches)
    left = iter(batches)
    return [each for size in sizes for each in steps.train([next(left) for _ in range(size)])]


def _trained(model: Any, batches: list[Any], *sizes: int, parts: int = 1) -> list[dict[str, float]]:
    return _run(Steps(model, StepChunker(), parts=parts), batches, *sizes)


@pytest.mark.parametrize("parts", [1, 2])
def test_chunks_change_no_bit_and_a_smaller_batch_is_a_step_like_others(parts: int) -> None:
    model = _net()
    model.optimizer.build(model.trainable_variables)
    before = _state(model)
    steps = Steps(model, StepChunker(), parts=parts)
    batches = _batches(*[8] * 7, 5)
    figures = _run(steps, batches, *[1] * 8)
    alone = _state(model)
    for sizes in ((7, 1), (1, 2, 1, 3, 1)):
        _restore(model, before)
        assert _run(steps, batches, *sizes) == figures
        for name, value in _state(model).items():
            assert np.array_equal(value, alone[name]), name
    changed = [name for name, value in before.items() if not np.array_equal(value, alone[name])]
    for part in ("kernel", "moving_variance", "seed_generator", "iteration"):
        assert any(part in name for name in changed), f"{part} never changed"


def test_figures_and_weights_are_keras_own() -> None:
    keras, ours = _net(), _net()
    batches = _batches(8, 8, 8, 5)
    found = _trained(ours, batches, 3, 1)
    for at, (batch, figures) in enumerate(zip(batches, found, strict=True)):
        expected = keras.train_on_batch(*batch, return_dict=True)
        rate = 0.01 * 0.5 ** (at / 2)
        expected = {name: float(of) for name, of in expected.items()} | {"learning_rate": rate}
        assert figures == pytest.approx(expected)
    for name, value in _state(keras).items():
        assert _state(ours)[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_testing_changes_nothing_that_is_trained() -> None:
    model = _net()
    batches = _batches(8, 8)
    steps = Steps(model, StepChunker())
    steps.train(batches)
    before = _state(model)
    tested = steps.test(batches)
    for name, value in _state(model).items():
        assert np.array_equal(value, before[name]), name
    for batch, figures in zip(batches, tested, strict=True):
        expected = model.test_on_batch(*batch, return_dict=True)
        assert figures == pytest.approx({name: float(of) for name, of in expected.items()})


def test_smoothed_labels_and_another_optimizer() -> None:
    keras = keras_backend.load()
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model = _net(keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=1.0), loss)
    other = _net(keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=1.0), loss)
    batches = _batches(8, 8)
    [_, figures] = _trained(model, batches, 2)
    other.train_on_batch(*batches[0])
    expected = other.train_on_batch(*batches[1], return_dict=True)
    assert figures["loss"] == pytest.approx(float(expected["loss"]))


def test_step_that_is_not_finite_is_distinguished_from_those_before_it() -> None:
    keras = keras_backend.load()
    batches = _batches(*[8] * 5)
    batches[2][1][:] = np.nan
    figures = _trained(_net(keras.optimizers.SGD(0.01)), batches, 5)
    assert np.isfinite([each["loss"] for each in figures]).tolist() == [True] * 2 + [False] * 3


def _plain() -> Any:
    """A net in which no picture depends on the others of its batch, nor on chance."""
    keras = keras_backend.load()
    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1), dtype="uint8"),
            *(layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu")),
            *(layers.Flatten(), layers.Dense(CLASSES, activation="softmax")),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    return model


def test_parts_of_a_batch_train_as_the_whole() -> None:
    whole = _plain()
    batches = [*_batches(8, 8, 8), *_batches(1)]  # of a single picture some parts are empty
    figures = _trained(whole, batches, 3, 1)
    pixels = batches[0][0]
    for parts in (2, 3):
        apart = _plain()
        of_parts = _trained(apart, batches, 3, 1, parts=parts)
        for one, other in zip(figures, of_parts, strict=True):
            assert one == pytest.approx(other, rel=1e-5)
        for one, other in zip(whole.weights, apart.weights, strict=True):
            assert one.numpy() == pytest.approx(other.numpy(), abs=1e-5)
        expected = whole.predict_on_batch(pixels)
        assert apart.predict_on_batch(pixels) == pytest.approx(expected, abs=1e-4)


def test_class_weights_count_in_training_alone() -> None:
    weights = np.array([2, 1, 0], np.float32)
    plain, weighted = _plain(), _plain()
    [(pixels, targets)] = _batches(6)
    counts = weights[targets.argmax(axis=1)]
    steps = Steps(weighted, StepChunker(), weights)
    [figures] = steps.train([(pixels, targets, counts)])
    answers = plain.predict_on_batch(pixels)
    losses = -np.log((answers * targets).sum(axis=1))
    assert figures["loss"] == pytest.approx((losses * counts).sum() / 6, rel=1e-5)
    again = -np.log((weighted.predict_on_batch(pixels) * targets).sum(axis=1))
    [tested] = steps.test([(pixels, targets)])
    assert tested["loss"] == pytest.approx(again.mean(), rel=1e-5)
