"""Sizes, receptive fields and counts of parameters, against known answers and against Keras."""

from typing import Any

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.lecture import convolution, geometry, kernels, pooling, shift
from convserve_trainer.lecture.geometry import Field
from convserve_trainer.nets import keras_backend, models
from convserve_trainer.recipes import recipe_files


@pytest.fixture(scope="module")
def lecture_net() -> Any:
    spec = InputSpec(height=28, width=28, channels=1)
    return models.build(recipe_files.find("lecture", "digits"), spec, 10, 60_000)


@pytest.fixture(scope="module")
def residual_net() -> Any:
    """Two paths that are added, batch normalisation, global pooling: no stack, no Flatten."""
    keras = keras_backend.load()
    layers = keras.layers
    pixels = keras.Input((28, 28, 1), dtype="uint8")
    scaled = layers.Rescaling(1 / 255)(pixels)
    first = layers.Conv2D(8, 5, padding="same", name="first")(scaled)
    second = layers.Conv2D(8, 3, padding="same", use_bias=False, name="second")(first)
    normal = layers.BatchNormalization(name="normal")(second)
    added = layers.Add(name="added")([first, normal])
    strided = layers.Conv2D(4, 3, strides=2, dilation_rate=1, name="strided")(added)
    dropped = layers.Dropout(0.5, name="dropped")(strided)
    last = layers.Conv2D(4, 3, dilation_rate=2, activation="relu", name="last")(dropped)
    pooled = layers.GlobalAveragePooling2D(name="pooled")(last)
    return keras.Model(pixels, layers.Dense(10, activation="softmax", name="said")(pooled))


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "expected"),
    [
        (28, 3, 1, "valid", 26),
        (26, 2, 2, "valid", 13),
        (11, 2, 2, "valid", 5),  # the last column is left over
        (28, 3, 1, "same", 28),
        (28, 3, 3, "same", 10),
        (7, 7, 1, "valid", 1),
    ],
)
def test_output_size(size: int, window: int, stride: int, padding: str, expected: int) -> None:
    assert geometry.output_size(size, window, stride, padding) == expected


def test_fields_of_the_lecture_net(lecture_net: Any) -> None:
    found = geometry.fields(lecture_net)
    kinds = [type(layer).__name__ for layer in lecture_net.layers]
    assert [
        (kind, field.size, field.jump) for kind, field in zip(kinds, found.values(), strict=True)
    ][:6] == [
        ("Rescaling", 1, 1),
        ("Conv2D", 3, 1),
        ("MaxPooling2D", 4, 2),
        ("Conv2D", 8, 2),
        ("MaxPooling2D", 10, 4),
        ("Conv2D", 18, 4),
    ]
    assert [field.size for field in list(found.values())[6:]] == [None] * 3


def test_fields_of_a_residual_net_are_those_of_the_longer_path(residual_net: Any) -> None:
    found = geometry.fields(residual_net)
    assert found["first"] == Field(5, 1, -2)
    assert found["added"] == found["normal"] == Field(7, 1, -3)
    assert found["strided"] == found["dropped"] == Field(9, 2, -3)
    assert found["last"] == Field(9 + 4 * 2, 2, -3), "a dilation of 2 makes 5 of a window of 3"
    assert found["pooled"].size is found["said"].size is None


def test_field_behind_an_unknown_layer_is_left_out() -> None:
    keras = keras_backend.load()
    pixels = keras.Input((8, 8, 1))
    turned = keras.layers.Permute((2, 1, 3), name="turned")(pixels)
    model = keras.Model(pixels, keras.layers.Conv2D(2, 3, name="behind")(turned))
    assert not {"turned", "behind"} & set(geometry.fields(model))


def test_parameters_are_those_that_keras_counts(lecture_net: Any, residual_net: Any) -> None:
    for layer in (*lecture_net.layers, *residual_net.layers):
        assert geometry.parameters(layer) == layer.count_params(), layer.name
    keras = keras_backend.load()
    grouped = keras.layers.Conv2D(6, 3, groups=2)
    grouped(np.zeros((1, 5, 5, 4), np.float32))
    keras.Sequential([keras.Input((5, 5, 4)), grouped])
    assert geometry.parameters(grouped) == grouped.count_params() == (9 * 2 + 1) * 6


def test_parameters_of_an_unknown_layer_are_not_guessed() -> None:
    keras = keras_backend.load()
    layer = keras.layers.PReLU()
    keras.Sequential([keras.Input((4,)), layer])
    assert geometry.parameters(layer) is None
    assert geometry.formula(layer) == ""


def test_net_without_pooling_has_more_parameters(lecture_net: Any, residual_net: Any) -> None:
    bare = pooling.without_pooling(lecture_net)
    assert bare.count_params() == 320 + 18_496 + 36_928 + (22 * 22 * 64 + 1) * 64 + 650
    same = pooling.without_pooling(residual_net)
    assert same.count_params() == residual_net.count_params()


def test_convolution_by_hand() -> None:
    pixels = np.arange(16).reshape(4, 4)
    assert convolution.convolved(pixels, np.array([[-1.0, 1.0]])).tolist() == [[1.0] * 3] * 4
    blurred = convolution.convolved(pixels, kernels.BLUR)
    assert blurred == pytest.approx(np.array([[5.0, 6.0], [9.0, 10.0]]))
    assert convolution.convolved(pixels, np.ones((2, 2)), stride=2).tolist() == [[10, 18], [42, 50]]


def test_kernel_is_most_like_the_one_it_is_made_of() -> None:
    name, cosine = kernels.nearest(-3.0 * kernels.PATTERNS["vertical"])
    assert name == "vertical"
    assert cosine == pytest.approx(1.0)
    assert kernels.nearest(np.zeros((3, 3)))[1] == 0.0


def test_shifted_pictures_lose_what_leaves() -> None:
    pixels = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    assert shift.shifted(pixels, 0, axis=2).tolist() == pixels.tolist()
    assert shift.shifted(pixels, 1, axis=2)[0, ..., 0].tolist() == [[0, 1, 2], [0, 4, 5], [0, 7, 8]]
    assert shift.shifted(pixels, -2, axis=1)[0, ..., 0].tolist() == [[7, 8, 9], [0] * 3, [0] * 3]


def test_extent_of_what_is_not_zero() -> None:
    values = np.zeros((6, 6))
    assert pooling.extent(values) == 0
    values[1, 2] = values[4, 3] = 1
    assert pooling.extent(values) == 4


def test_square_begins_where_the_field_begins() -> None:
    field = Field(1).through(3, 1).through(2, 2).through(3, 1)
    assert (field.size, field.jump) == (8, 2)
    assert field.square(0, 3) == (0, 6, 8)
    assert field.square(10, 0) == (20, 0, 8)
    assert Field(1).through(3, 2, before=1).through(3, 1, before=1) == Field(7, 2, -3)
