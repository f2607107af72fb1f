import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer import export, models, predict
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import PHOTO_LECTURE, PHOTO_QUICK, RECIPES, Recipe

SPEC = InputSpec(height=24, width=30, channels=3)


def test_photo_net_of_the_lecture_has_3453121_parameters() -> None:
    model = models.build(PHOTO_LECTURE, InputSpec(height=150, width=150, channels=3), 2)
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
    recipe = PHOTO_QUICK.for_classes(3)
    assert recipe.loss == "categorical_crossentropy"
    model = models.build(recipe, SPEC, 3)
    assert model.output_shape == (None, 3)
    assert model.layers[-1].activation.__name__ == "softmax"
    assert models.of_columns(model) is model


def test_sigmoid_is_exported_as_two_columns() -> None:
    model = models.build(PHOTO_QUICK, SPEC, 2)
    # Larger weights than drawn, so that the probabilities differ from one half.
    model.layers[-1].set_weights([weights * 30 for weights in model.layers[-1].get_weights()])
    pixels = np.random.default_rng(0).integers(0, 256, (9, 24, 30, 3), np.uint8)
    exported = export.export(models.of_columns(model))
    found = predict.by_onnxruntime(predict.session(exported.SerializeToString()), pixels, 2)
    [second] = model.predict_on_batch(pixels).T
    assert np.ptp(second) > 0.01
    assert np.abs(found - np.stack([1 - second, second], axis=1)).max() < 1e-6
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6
    described = [
        export.describe(value) for value in (*exported.graph.input, *exported.graph.output)
    ]
    assert described == ["pixels: uint8 [N, 24, 30, 3]", "probabilities: float32 [N, 2]"]
    operators = export.operators(exported)
    assert operators[:2] == ["Cast", "Mul"]
    assert operators.count("Cast") == 1
    assert not export.SHAPE_OPERATORS & set(operators)


@pytest.mark.parametrize(
    ("recipe", "smallest"), [(RECIPES[0], 18), (PHOTO_LECTURE, 46), (PHOTO_QUICK, 22)]
)
def test_smallest_picture_leaves_one_pixel(recipe: Recipe, smallest: int) -> None:
    assert models.NETS[recipe.net].smallest == smallest
    model = models.build(recipe, InputSpec(height=smallest, width=60, channels=3), 2)
    flatten = next(layer for layer in model.layers if type(layer).__name__ == "Flatten")
    assert flatten.input.shape[1] == 1
    with pytest.raises(ValueError, match="output size would be zero or negative"):
        models.build(recipe, InputSpec(height=smallest - 1, width=60, channels=3), 2)


def test_picture_too_small_for_the_net_is_refused() -> None:
    models.check_size(PHOTO_LECTURE.override(height=46, width=46))
    with pytest.raises(UsageError) as caught:
        models.check_size(PHOTO_LECTURE.override(height=45, width=150))
    assert str(caught.value) == ("--size is 45x150; the net of recipe lecture takes 46x46 or more")
