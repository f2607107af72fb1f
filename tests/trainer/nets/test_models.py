import gc
from typing import Any

import msgspec
import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.bundles import describe
from convserve_trainer.errors import UsageError
from convserve_trainer.evaluation import predict
from convserve_trainer.export import contract, keras_to_onnx
from convserve_trainer.nets import keras_backend, models, normalization
from convserve_trainer.recipes import layers, recipe, recipe_files
from convserve_trainer.recipes.recipe import Recipe

LECTURE = recipe_files.find("lecture", "digits")
PHOTO_LECTURE = recipe_files.find("lecture", "photos")
PHOTO_QUICK = recipe_files.find("quick", "photos")

SPEC = InputSpec(height=24, width=30, channels=3)


def test_what_tensorflow_makes_is_not_looked_through_for_garbage() -> None:
    keras_backend.load()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 100_000


def test_photo_net_of_the_lecture_has_3453121_parameters() -> None:
    model = models.build(PHOTO_LECTURE, InputSpec(height=150, width=150, channels=3), 2, 100)
    assert model.count_params() == 3_453_121
    assert model.input_shape == (None, 150, 150, 3)
    assert model.output_shape == (None, 1)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "Rescaling",
        *["Conv2D", "MaxPooling2D"] * 4,
        *["Flatten", "Dense", "Dense"],
    ]
    assert [layer.filters for layer in model.layers[1:9:2]] == [32, 64, 128, 128]
    assert [layer.units for layer in model.layers[-2:]] == [512, 1]
    config = [model.layers[-1].activation.__name__, model.loss, type(model.optimizer).__name__]
    assert config == ["sigmoid", "binary_crossentropy", "RMSprop"]
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)


def test_more_than_two_classes_take_a_softmax_by_the_same_recipe() -> None:
    assert PHOTO_LECTURE.for_classes(2) == PHOTO_LECTURE
    for_three = PHOTO_QUICK.for_classes(3)
    assert for_three.loss == "categorical_crossentropy"
    model = models.build(for_three, SPEC, 3, 100)
    assert model.output_shape == (None, 3)
    assert model.layers[-1].activation.__name__ == "softmax"
    assert models.with_class_columns(model) is model


def test_sigmoid_is_exported_as_two_columns() -> None:
    model = models.build(PHOTO_QUICK, SPEC, 2, 100)
    # Larger weights than drawn, so that the probabilities differ from one half.
    model.layers[-1].set_weights([weights * 30 for weights in model.layers[-1].get_weights()])
    pixels = np.random.default_rng(0).integers(0, 256, (9, 24, 30, 3), np.uint8)
    exported = keras_to_onnx.export(models.with_class_columns(model))
    found = predict.by_onnxruntime(predict.session(exported.SerializeToString()), pixels, 2)
    [second] = model.predict_on_batch(pixels).T
    assert np.ptp(second) > 0.01
    assert np.abs(found - np.stack([1 - second, second], axis=1)).max() < 1e-6
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6
    described = [
        contract.describe(value) for value in (*exported.graph.input, *exported.graph.output)
    ]
    assert described == ["pixels: uint8 [N, 24, 30, 3]", "probabilities: float32 [N, 2]"]
    operators = contract.operators(exported)
    assert operators[:2] == ["Cast", "Mul"]
    assert operators.count("Cast") == 1
    assert not contract.SHAPE_OPERATORS & set(operators)


def test_standardized_net_sees_neither_brightness_nor_contrast() -> None:
    pixels = np.random.default_rng(0).integers(80, 121, (9, 24, 30, 3), np.uint8)
    changed = 3 * pixels - 130
    usual = PHOTO_QUICK.for_classes(3)
    net = (layers.Standardize(), *usual.net)
    for given, blind in ((usual, False), (msgspec.structs.replace(usual, net=net), True)):
        model = models.build(given, SPEC, 3, 100)
        model.layers[-1].set_weights([5 * weights for weights in model.layers[-1].get_weights()])
        apart = model.predict_on_batch(pixels) - model.predict_on_batch(changed)
        assert (np.abs(apart).max() < 0.01) == blind
        exported = keras_to_onnx.export(model).SerializeToString()
        flat = np.full((1, 24, 30, 3), 7, np.uint8)
        for some in (pixels, changed, flat):
            found = predict.by_onnxruntime(predict.session(exported), some, 3)
            assert np.abs(found - model.predict_on_batch(some)).max() < 1e-5


@pytest.mark.parametrize(
    ("given", "smallest"), [(LECTURE, 18), (PHOTO_LECTURE, 46), (PHOTO_QUICK, 22)]
)
def test_smallest_picture_leaves_one_pixel(given: Recipe, smallest: int) -> None:
    assert layers.smallest(given.net) == smallest
    model = models.build(given, InputSpec(height=smallest, width=60, channels=3), 2, 100)
    flatten = next(layer for layer in model.layers if type(layer).__name__ == "Flatten")
    assert flatten.input.shape[1] == 1
    with pytest.raises(ValueError, match="output size would be zero or negative"):
        models.build(given, InputSpec(height=smallest - 1, width=60, channels=3), 2, 100)


def test_picture_too_small_for_the_net_is_refused() -> None:
    models.check_size(PHOTO_LECTURE.override(height=46, width=46))
    with pytest.raises(UsageError) as caught:
        models.check_size(PHOTO_LECTURE.override(height=45, width=150))
    assert str(caught.value) == (
        "--size: expected 46x46 or more for the net of recipe lecture, got 45x150"
    )


EVERYTHING = recipe.make_recipe(
    {
        "name": "everything",
        "task": "photos",
        **{"height": 40, "width": 40, "epochs": 10, "batch_size": 10},
        "net": [
            {"layer": "conv", "filters": 8, "kernel": 5, "stride": 2, "norm": "batch"},
            {"layer": "max_pool"},
            {"layer": "residual", "filters": 8},
            {"layer": "residual", "filters": 16, "stride": 2},
            {"layer": "conv", "filters": 12, "padding": "same"},
            {"layer": "global_average"},
            {"layer": "dropout", "rate": 0.2},
            {"layer": "dense", "units": 8},
        ],
        "loss": "binary_crossentropy",
        "augmentation": {"rotation": 10, "flip": True, "erase": 0.2},
        **{"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
        **{"schedule": "cosine", "warmup_epochs": 2, "label_smoothing": 0.1},
    },
    "",
)
SQUARE = InputSpec(height=40, width=40, channels=3)


@pytest.fixture(scope="module")
def trained() -> Any:
    model = models.build(EVERYTHING, SQUARE, 2, 100)
    generator = np.random.default_rng(0)
    for _ in range(5):  # the means of the normalisation, too, must be others than at first
        pixels = generator.integers(0, 256, (8, 40, 40, 3), np.uint8)
        model.train_on_batch(pixels, np.arange(8, dtype=np.float32)[:, np.newaxis] % 2)
    return model


def test_normalisation_dropout_and_augmentation_are_gone_from_what_is_exported(
    trained: Any,
) -> None:
    net = models.for_inference(trained, EVERYTHING, SQUARE)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 40, 40, 3), np.uint8)
    expected = trained.predict_on_batch(pixels)
    assert np.abs(net.predict_on_batch(pixels) - expected).max() < 1e-6
    kinds = {type(layer).__name__ for layer in net.layers}
    assert not kinds & {"RandomChange", "Dropout", "FusedBatchNormalization"}
    exported = keras_to_onnx.export(models.with_class_columns(net))
    operators = contract.operators(exported)
    assert operators.count("Conv") == 7
    assert "BatchNormalization" not in operators
    assert operators.count("Mul") == 2  # 1/255, and that of the two columns
    found = predict.by_onnxruntime(predict.session(exported.SerializeToString()), pixels, 3)
    assert np.abs(found[:, 1:] - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("policy", "trained", "asked"),
    [("float32", 1e-5, 1e-2), ("mixed_bfloat16", 2**-6, 2e-2)],
    ids=["float32", "bfloat16"],
)
def test_fused_normalisation_trains_as_that_of_keras(
    policy: str, trained: float, asked: float
) -> None:
    keras = keras_backend.load()
    values = np.random.default_rng(0).normal(3, 2, (16, 5, 7, 4)).astype(np.float32)
    fused = normalization.FusedBatchNormalization(momentum=0.5, dtype=policy)
    plain = keras.layers.BatchNormalization(momentum=0.5, dtype=policy)

    def both(training: bool) -> tuple[Any, Any]:
        outputs = [layer(values, training=training) for layer in (fused, plain)]
        assert outputs[0].dtype == outputs[1].dtype == plain.compute_dtype
        found, expected = (np.array(keras.ops.cast(each, "float32")) for each in outputs)
        return found, expected

    for _ in range(3):
        found, expected = both(training=True)
        assert found == pytest.approx(expected, abs=trained)
    assert np.array(fused.moving_mean) == pytest.approx(np.array(plain.moving_mean), rel=1e-5)
    # The kernel's estimate, which Keras's single operations do not make.
    count = 16 * 5 * 7
    unbiased = (np.array(plain.moving_variance) - 0.5**3) * count / (count - 1) + 0.5**3
    assert np.array(fused.moving_variance) == pytest.approx(unbiased, rel=1e-5)
    found, expected = both(training=False)
    assert found == pytest.approx(expected, abs=asked)


def test_schedule_rises_and_falls_as_the_recipe_says(trained: Any) -> None:
    schedule = models.build(EVERYTHING, SQUARE, 2, 95).optimizer._learning_rate
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]  # of 10 epochs of 10 steps
    assert rates == pytest.approx([0, 0.005, 0.01, 0.005, 0], abs=1e-6)
    slow = models.build(EVERYTHING.override(schedule="constant"), SQUARE, 2, 95)
    rates = [float(slow.optimizer._learning_rate(step)) for step in (0, 10, 20, 100)]
    assert rates == pytest.approx([0, 0.005, 0.01, 0.01])


def test_loss_and_optimizer_are_those_of_the_recipe(trained: Any) -> None:
    assert trained.loss.label_smoothing == 0.1
    assert type(trained.optimizer).__name__ == "AdamW"
    assert trained.optimizer.weight_decay == 0.01
    none = models.build(EVERYTHING.override(weight_decay=0.0), SQUARE, 2, 100)
    assert not none.optimizer.weight_decay
    sgd = models.build(EVERYTHING.override(optimizer="sgd"), SQUARE, 2, 100).optimizer
    assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.9, True, 0.01)


@pytest.mark.parametrize("chosen", [EVERYTHING, LECTURE])
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32(chosen: Recipe) -> None:
    model = models.build(chosen.override(mixed_precision=True), SQUARE, 2, 100)
    *body, head = [layer for layer in model.layers if layer.weights]
    assert {layer.compute_dtype for layer in body} == {"bfloat16"}, "in blocks, too"
    assert head.compute_dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    pixels = [layer for layer in model.layers if type(layer).__name__ == "Rescaling"]
    assert {layer.compute_dtype for layer in pixels} == {"float32"}
    net = models.for_inference(model, chosen, SQUARE)
    assert {layer.compute_dtype for layer in net.layers[1:]} == {"float32"}
    without = models.build(chosen, SQUARE, 2, 100)
    assert {layer.compute_dtype for layer in without.layers[1:]} == {"float32"}


@pytest.mark.parametrize(
    ("name", "task", "shape", "parameters", "floating"),
    [
        ("lecture", "digits", (28, 28, 1), 93_322, 5_588_480),
        ("lecture", "photos", (150, 150, 3), 3_453_121, 472_190_976),
    ],
)
def test_operations_of_the_lectures_nets(
    name: str, task: str, shape: tuple[int, int, int], parameters: int, floating: int
) -> None:
    height, width, channels = shape
    spec = InputSpec(height=height, width=width, channels=channels)
    of_lecture = recipe_files.find(name, task)
    model = models.build(of_lecture, spec, 10 if task == "digits" else 2, 100)
    assert model.count_params() == parameters
    assert (
        describe.count_operations(keras_to_onnx.export(models.with_class_columns(model)))
        == floating
    )
    # By hand: 26 x 26 places of 9 x 32 products, and so on.
    if task == "digits":
        products = 26**2 * 9 * 32 + 11**2 * 288 * 64 + 3**2 * 576 * 64 + 576 * 64 + 64 * 10
        assert floating == 2 * products


@pytest.mark.parametrize("task", ["digits", "photos"])
def test_best_recipe_has_no_more_parameters_than_the_lectures(task: str) -> None:
    """Nor operations, for photographs; for digits, up to 30 MFLOP."""
    best, shape = recipe_files.find("best", task), (28, 28, 1)
    if task == "photos":
        shape = (best.height or 0, best.width or 0, 3)
    spec = InputSpec(height=shape[0], width=shape[1], channels=shape[2])
    net = models.build(best, spec, 10 if task == "digits" else 2, 100)
    exported = keras_to_onnx.export(
        models.with_class_columns(models.for_inference(net, best, spec))
    )
    most = {"digits": (93_322, 30_000_000), "photos": (3_453_121, 472_190_976)}[task]
    assert net.count_params() <= most[0]
    assert describe.count_operations(exported) <= most[1]
