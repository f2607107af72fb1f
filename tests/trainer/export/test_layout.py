"""The change of the pixels' shape comes before the arithmetic on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from convserve_bundle.held_model import HeldModel
from convserve_bundle.pixel_arithmetic import operators_over_one
from convserve_trainer.errors import ExportError
from convserve_trainer.export import contract, layout

Constants = Mapping[str, np.ndarray | np.generic]


def net(
    nodes: Sequence[onnx.NodeProto], constants: Constants, channels: int = 1
) -> onnx.ModelProto:
    """Pixels [N, 4, 4, C] through some nodes to `shaped`, and the largest of each of four rows."""
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("ReduceMax", ["shaped"], ["probabilities"], axes=[1, 3], keepdims=0),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 4, 4, channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 15)])


CAST = helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT)
SCALE = {"scale": np.float32(1 / 255)}
SHAPE = {"shape": np.array([-1, 1, 4, 4])}


def scaled(constants: Constants, shaping: str = "Reshape") -> onnx.ModelProto:
    last = (
        helper.make_node("Reshape", ["scaled", "shape"], ["shaped"])
        if shaping == "Reshape"
        else helper.make_node("Transpose", ["scaled"], ["shaped"], perm=[0, 3, 1, 2])
    )
    multiply = helper.make_node("Mul", ["cast", "scale"], ["scaled"])
    return net([CAST, multiply, last], constants)


def seen_by_a_server(model: onnx.ModelProto) -> list[str]:
    return operators_over_one(HeldModel(Path("model.onnx"), model.SerializeToString()))


def answers(model: onnx.ModelProto, channels: int = 1) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 4, channels), np.uint8)
    [found] = session.run(None, {"pixels": pixels})
    return np.asarray(found)


@pytest.mark.parametrize("shaping", ["Reshape", "Transpose"])
def test_change_of_shape_comes_first_and_changes_no_bit(shaping: str) -> None:
    constants: Constants = {**SCALE, **(SHAPE if shaping == "Reshape" else {})}
    model = scaled(constants, shaping)
    before = answers(model)
    assert layout.spread_over_one(model) == ["Mul"]
    assert seen_by_a_server(model) == ["Mul"]
    with pytest.raises(ExportError, match="Mul over a last axis of 1"):
        contract.check(model)
    assert layout.reshape_first(model)
    assert contract.operators(model)[:3] == [shaping, "Cast", "Mul"]
    assert layout.spread_over_one(model) == []
    assert seen_by_a_server(model) == []
    contract.check(model)
    np.testing.assert_array_equal(answers(model), before)
    assert not layout.reshape_first(model)


def test_several_operators_move_together() -> None:
    model = net(
        [
            CAST,
            helper.make_node("Sub", ["cast", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "scale"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "shape"], ["shaped"]),
        ],
        {"mean": np.array([[7.5]], np.float32), "scale": np.float32(255), **SHAPE},
    )
    before = answers(model)
    assert seen_by_a_server(model) == ["Sub", "Div"]
    assert layout.reshape_first(model)
    assert contract.operators(model)[:4] == ["Reshape", "Cast", "Sub", "Div"]
    np.testing.assert_array_equal(answers(model), before)


def test_several_channels_are_left_as_they_are() -> None:
    multiply = helper.make_node("Mul", ["cast", "scale"], ["scaled"])
    last = helper.make_node("Transpose", ["scaled"], ["shaped"], perm=[0, 3, 1, 2])
    model = net([CAST, multiply, last], SCALE, 3)
    assert not layout.reshape_first(model)
    assert seen_by_a_server(model) == []
    contract.check(model)


def test_what_is_not_of_one_number_is_left_where_it_is() -> None:
    model = scaled({"scale": np.linspace(0, 1, 4, dtype=np.float32).reshape(4, 1), **SHAPE})
    # What cannot be mended is not named.
    assert seen_by_a_server(model) == []
    before = model.SerializeToString()
    assert not layout.reshape_first(model)
    assert model.SerializeToString() == before


def test_pixels_that_are_used_twice_are_left_where_they_are() -> None:
    model = net(
        [
            CAST,
            helper.make_node("Mul", ["cast", "cast"], ["scaled"]),
            helper.make_node("Add", ["scaled", "cast"], ["sum"]),
            helper.make_node("Reshape", ["sum", "shape"], ["shaped"]),
        ],
        SHAPE,
    )
    # What cannot be mended is not named.
    assert seen_by_a_server(model) == []
    before = model.SerializeToString()
    assert not layout.reshape_first(model)
    assert model.SerializeToString() == before
