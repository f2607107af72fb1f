"""Weights of other nets: how files are read, and which layers fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.errors import StartError
from convserve_trainer.nets import keras_backend, models, starts, weights_file
from convserve_trainer.recipes.recipe import Recipe, make_recipe

SPEC = InputSpec(height=20, width=20, channels=3)


def _recipe(**more: Any) -> Recipe:
    return make_recipe(
        {
            **{"name": "small", "task": "photos", "height": 20, "width": 20},
            **{"epochs": 4, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1},
            "net": [
                {"layer": "conv", "filters": 4, "norm": "batch"},
                {"layer": "residual", "filters": 8, "stride": 2},
                {"layer": "global_average"},
            ],
            **more,
        },
        "",
    )


def _step(model: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)
    model.train_on_batch(pixels, np.eye(3, dtype=np.float32)[np.arange(8) % 3])


@pytest.mark.parametrize("name", ["net.keras", "net.weights.h5"])
def test_both_forms_of_a_file_give_all_layers_but_the_output(name: str, tmp_path: Path) -> None:
    other = models.build(_recipe(seed=2), SPEC, 2, 100)
    other.save(tmp_path / name) if name == "net.keras" else other.save_weights(tmp_path / name)
    model = models.build(_recipe(), SPEC, 3, 100)
    taken, left = starts.take(model, weights_file.read(tmp_path / name))
    assert left == ["dense: the output is new"]
    assert len(taken) == 8
    for layer in taken:
        for mine, theirs in zip(
            layer.get_weights(), other.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


def test_net_within_a_net_gives_its_layers_too(tmp_path: Path) -> None:
    keras = keras_backend.load()
    kinds = keras.layers
    keras.utils.set_random_seed(5)
    body = keras.Sequential([keras.Input((20, 20, 3)), kinds.Conv2D(4, 3, use_bias=False)])
    top = [kinds.GlobalAveragePooling2D(), kinds.Dense(2)]
    net = keras.Sequential([keras.Input((20, 20, 3)), body, *top])
    net.save(tmp_path / "net.keras")
    model = models.build(_recipe(), SPEC, 3, 100)
    taken, left = starts.take(model, weights_file.read(tmp_path / "net.keras"))
    [layer] = taken
    np.testing.assert_array_equal(layer.get_weights()[0], body.layers[0].get_weights()[0])
    assert "fused_batch_normalization: there are 0 of its kind" in left


def test_layer_of_another_shape_is_left_as_it_was(tmp_path: Path) -> None:
    net = _recipe().values()["net"]
    net[0]["filters"] = 5
    models.build(_recipe(net=net), SPEC, 3, 100).save(tmp_path / "net.keras")
    model = models.build(_recipe(), SPEC, 3, 100)
    before = model.get_layer("conv2d").get_weights()[0]
    _, left = starts.take(model, weights_file.read(tmp_path / "net.keras"))
    assert "conv2d: expected [3, 3, 3, 4], got [3, 3, 3, 5]" in left
    np.testing.assert_array_equal(model.get_layer("conv2d").get_weights()[0], before)


def test_file_without_layers_is_refused(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        file["vars"] = np.zeros(3)
    with pytest.raises(StartError, match="got a file without layers"):
        weights_file.read(tmp_path / "net.weights.h5")


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
def test_step_of_the_body_is_the_rate_times_that_of_the_whole(
    optimizer: str, tmp_path: Path
) -> None:
    first = _recipe(seed=7)
    models.build(first, SPEC, 3, 100).save(tmp_path / "net.keras")
    steps = []
    for rate in (1.0, 0.25):
        decay = 0.1 if optimizer in ("sgd", "adamw") else 0.0
        given = _recipe(
            start_from=str(tmp_path / "net.keras"),
            **{"body_rate": rate, "optimizer": optimizer, "weight_decay": decay},
        )
        model = models.build(given, SPEC, 3, 100)
        before = [variable.numpy() for variable in model.trainable_weights]
        _step(model)
        after = [variable.numpy() for variable in model.trainable_weights]
        own = {id(variable) for variable in model.optimizer.variables}
        assert not own & {id(variable) for variable in model.trainable_weights}
        steps.append([b - a for a, b in zip(before, after, strict=True)])
    *body, kernel, bias = zip(*steps, strict=True)
    for whole, part in body:
        np.testing.assert_allclose(part, 0.25 * whole, rtol=1e-3, atol=1e-6)
        assert np.abs(whole).max() > 1e-5
    for whole, same in (kernel, bias):
        np.testing.assert_array_equal(same, whole)


def test_frozen_normalisation_keeps_its_statistics(tmp_path: Path) -> None:
    models.build(_recipe(seed=7), SPEC, 3, 100).save(tmp_path / "net.keras")
    given = _recipe(start_from=str(tmp_path / "net.keras"), freeze_epochs=2)
    model = models.build(given, SPEC, 3, 100)
    before = model.get_weights()
    _step(model)
    after = model.get_weights()
    differing = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert differing == [False] * (len(before) - 2) + [True] * 2
    models.thaw(model, given, 100)
    assert models.frozen(model) == []
    _step(model)
    same = [np.array_equal(a, b) for a, b in zip(after, model.get_weights(), strict=True)]
    assert not any(same)


def test_each_stage_has_the_schedule_for_itself(tmp_path: Path) -> None:
    models.build(_recipe(seed=7), SPEC, 3, 100).save(tmp_path / "net.keras")
    given = _recipe(
        start_from=str(tmp_path / "net.keras"),
        **{"freeze_epochs": 1, "schedule": "cosine", "warmup_epochs": 1, "steps": 10},
    )
    assert given.stage_ends == (1, 4)
    model = models.build(given, SPEC, 3, 100)
    schedule = model.optimizer.get_config()["learning_rate"]["config"]
    assert (schedule["decay_steps"], schedule["warmup_steps"]) == (10, 0)
    models.thaw(model, given, 100)
    schedule = model.optimizer.get_config()["learning_rate"]["config"]
    assert (schedule["decay_steps"], schedule["warmup_steps"]) == (20, 10)
    assert given.override(freeze_epochs=4, warmup_epochs=0.0).stage_ends == (4,)
