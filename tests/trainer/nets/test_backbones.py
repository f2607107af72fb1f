"""Backbones as the first layer of a recipe's net."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import PRECISION_FLOAT16, InputSpec
from convserve_trainer.bundles import bundle
from convserve_trainer.errors import StartError, UsageError
from convserve_trainer.evaluation import predict
from convserve_trainer.export import contract, keras_to_onnx, parity
from convserve_trainer.main import main
from convserve_trainer.nets import backbones, keras_backend, models
from convserve_trainer.recipes import layers
from convserve_trainer.recipes.layers import Backbone
from convserve_trainer.recipes.recipe import Recipe, make_recipe
from tests.trainer.drawn import draw_parts

SPEC = InputSpec(height=40, width=64, channels=3)
SMALL = {"layer": "backbone", "name": "MobileNet", "alpha": 0.25}
APPLICATIONS = "keras.src.applications.mobilenet"


def _recipe(first: dict[str, Any], **more: Any) -> Recipe:
    return make_recipe(
        {
            **{"name": "known", "task": "photos", "height": 40, "width": 64},
            **{"epochs": 2, "batch_size": 4, "augmentation": {"flip": True}},
            "net": [first, {"layer": "global_average"}, {"layer": "dropout", "rate": 0.2}],
            **more,
        },
        "",
    )


def _liven(model: Any) -> None:
    """Gives normalisations statistics such that answers differ between pictures."""
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = layer.get_weights()
            gamma = generator.uniform(1, 1.5, gamma.shape)
            layer.set_weights([gamma, beta, mean, np.full_like(variance, 0.1)])


def _pixels(count: int = 5) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def exported() -> tuple[Any, Any]:
    """A net with a backbone as Keras has it in inference, and as ONNX."""
    recipe = _recipe(SMALL)
    model = models.build(recipe, SPEC, 3, 100)
    _liven(model)
    net = models.for_inference(model, recipe, SPEC)
    return net, keras_to_onnx.export(net)


def test_backbone_is_exported_and_folded_as_any_layers(exported: tuple[Any, Any]) -> None:
    net, graph = exported
    pixels = _pixels()
    expected = net.predict_on_batch(pixels)
    found = predict.by_onnxruntime(predict.session(graph.SerializeToString()), pixels, 3)
    assert np.ptp(expected, axis=0).max() > 0.01
    assert np.abs(found - expected).max() < 1e-6
    operators = contract.operators(graph)
    assert "BatchNormalization" not in operators
    assert operators.count("Cast") == 1


def test_backbone_computes_in_bfloat16_and_scales_pixels_in_float32() -> None:
    model = models.build(_recipe(SMALL, mixed_precision=True), SPEC, 3, 100)
    *body, _ = [layer for layer in model.layers if layer.weights]
    assert len(body) > 50
    assert {layer.compute_dtype for layer in body} == {"bfloat16"}
    scaling = [layer for layer in model.layers if type(layer).__name__ == "Rescaling"]
    assert [layer.compute_dtype for layer in scaling] == ["float32"] * 2


@pytest.mark.parametrize("name", [kind for kind in backbones.NAMES if kind != "EfficientNetLite0"])
def test_pixels_are_scaled_as_the_net_of_keras_scales_them(name: str) -> None:
    """Beside the preprocessing that Keras documents for the same net."""
    keras = keras_backend.load()
    module = {
        "MobileNet": "mobilenet",
        "MobileNetV2": "mobilenet_v2",
        "EfficientNetB0": "imagenet_utils",
        "EfficientNetV2B0": "imagenet_utils",
    }.get(name)
    pixels = _pixels().astype(np.float32)
    if name.startswith("EfficientNet"):
        expected = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    elif module is None:
        expected = pixels / 127.5 - 1
    else:
        expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    kind = backbones.kind(name)
    given = pixels / 255 * np.array(kind.scale) + np.array(kind.offset)
    if name == "EfficientNetB0":  # divides by 255 in its own first layer
        given /= 255
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_weights_of_a_file_are_those_that_the_net_begins_with(tmp_path: Path) -> None:
    file = tmp_path / "body.weights.h5"
    keras = keras_backend.load()
    keras.utils.set_random_seed(9)
    given = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    given.save_weights(file)
    recipe = _recipe({**SMALL, "weights": str(file)}, freeze_epochs=1, body_rate=0.1)
    stated: list[str] = []
    model = models.build(recipe, SPEC, 3, 100, stated.append)
    assert stated == [f"begins with      MobileNet, {file}: 54 layers"]
    for layer in given.layers:
        for mine, theirs in zip(
            model.get_layer(layer.name).get_weights() if layer.weights else [],
            layer.get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, theirs)
    assert len(models.frozen(model)) == 54
    assert len(model.trainable_weights) == 2


def test_file_of_another_net_is_refused_before_the_data_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras = keras_backend.load()
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    for file, stated in (
        ("other.weights.h5", " does not hold the weights of MobileNet ("),
        ("none.weights.h5", "none.weights.h5: No such file or directory"),
    ):
        assert _fit(tmp_path, tmp_path / "no data", str(tmp_path / file)) == 1
        assert stated in capsys.readouterr().err


def _fit(folder: Path, data: Path, weights: str, *more: str) -> int:
    recipe = folder / "known.toml"
    recipe.write_text(
        f"""
task = "photos"
height = 32
width = 32
epochs = 1
steps = 2
batch_size = 4
loss = "binary_crossentropy"
net = [
  {{ layer = "backbone", name = "MobileNet", alpha = 0.25, weights = "{weights}" }},
  {{ layer = "global_average" }},
]
"""
    )
    command = ["fit", "photos", "--recipe", str(recipe), "--data", str(data)]
    return main([*command, "--models", str(folder / "models"), *more])


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Writes nothing."""


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Keras downloads from."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    handler = partial(_Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(
            f"{APPLICATIONS}.BASE_WEIGHT_PATH", f"http://127.0.0.1:{server.server_port}/"
        )
        yield folder
        server.shutdown()
        thread.join()


def test_weights_that_cannot_be_downloaded_are_a_message_before_the_data_are_read(
    downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(tmp_path, tmp_path / "no data", "imagenet") == 1
    error = capsys.readouterr().err
    assert 'net.0.weights: "imagenet" of MobileNet cannot be had (URL fetch failure on ' in error
    assert "it is downloaded once, with a network; a file of weights" in error
    assert len(error.splitlines()) == 1


@pytest.mark.usefixtures("undrawn")
def test_downloaded_weights_are_published_with_their_digest(
    downloads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from keras.src.legacy.saving import legacy_h5_format

    keras = keras_backend.load()
    given = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(224, 224, 3)
    )
    import h5py

    with h5py.File(downloads / "mobilenet_2_5_224_tf_no_top.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, given)
    data = draw_parts(tmp_path / "set", {"red": 6, "blue": 6}, {"red": 4, "blue": 4})
    assert _fit(tmp_path, data, "imagenet", "--freeze-epochs", "1") == 0
    assert "begins with      MobileNet, imagenet: 54 layers\n" in capsys.readouterr().out
    [origin] = bundle.read_manifest(tmp_path / "models" / "set").training.origins
    assert origin.source == "MobileNet, imagenet"
    assert len(origin.sha256) == 64


@pytest.mark.parametrize(
    ("first", "more", "stated"),
    [
        ({"layer": "backbone", "name": "VGG16"}, {}, "expected MobileNet, MobileNetV2"),
        ({**SMALL, "name": "EfficientNetB0"}, {}, "alpha: expected with MobileNet or "),
        (SMALL, {"channels": 1}, "channels: expected 3 with a backbone, got 1"),
        (SMALL, {"freeze_epochs": 1}, "freeze_epochs and body_rate: expected with start_from"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    first: dict[str, Any], more: dict[str, Any], stated: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _recipe(first, **more)
    assert stated in str(caught.value)


def test_second_layer_and_small_or_grey_pictures_are_refused() -> None:
    recipe = _recipe(SMALL)
    with pytest.raises(UsageError, match="as the first layer of the net only"):
        recipe.override({"net": [{"layer": "conv", "filters": 3}, *recipe.values()["net"]]})
    with pytest.raises(UsageError, match="standardize: expected as the first layer of the net"):
        recipe.override({"net": [SMALL, {"layer": "standardize"}, {"layer": "global_average"}]})
    with pytest.raises(UsageError, match="--size: expected 32x32 or more"):
        models.check_size(recipe.override(height=31))
    with pytest.raises(UsageError, match="expected 3 channels for a backbone, got 1"):
        models.check_pictures(recipe, InputSpec(height=40, width=40, channels=1))


def test_imagenet_is_refused_where_keras_has_none() -> None:
    layer = Backbone(name="EfficientNetLite0", weights=layers.IMAGENET)
    with pytest.raises(StartError, match='expected "none" or a file for EfficientNetLite0'):
        backbones.weights(layer)


def test_reduced_precisions_have_a_backbone_too(exported: tuple[Any, Any]) -> None:
    _, graph = exported
    half, *_ = parity.candidates(graph, PRECISION_FLOAT16, iter(()))
    pixels = _pixels()
    found = predict.by_onnxruntime(predict.session(half.model.SerializeToString()), pixels, 3)
    whole = predict.by_onnxruntime(predict.session(graph.SerializeToString()), pixels, 3)
    assert 0 < np.abs(found - whole).max() < 0.01
