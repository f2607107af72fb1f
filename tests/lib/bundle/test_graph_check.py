"""What is refused in an ONNX file before ONNX Runtime sees it, and that real nets are not."""

import contextlib
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from convserve_bundle import graph_check
from convserve_bundle.errors import BundleError
from convserve_bundle.held_model import HeldModel, hold
from tests import onnx_models
from tests.bundles import model, photo_model

FLOAT = TensorProto.FLOAT
X: onnx_models.Value = ("x", FLOAT, ["N", 3])
Y: onnx_models.Value = ("y", FLOAT, ["N", 3])
BILLION = np.array([10**9, 10], np.int64)


def with_nodes(
    *nodes: onnx.NodeProto,
    weights: dict[str, NDArray[Any]] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    domains: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """y = x, beside other nodes."""
    identity = helper.make_node("Identity", ["x"], ["y"])
    made = onnx_models.build([*nodes, identity], [X], [Y], weights, domains)
    made.functions.extend(functions or [])
    return made


def custom_operator() -> onnx.ModelProto:
    node = helper.make_node("Run", ["x"], ["z"], domain="evil.example")
    return with_nodes(node, domains={"evil.example": 1})


def custom_operator_within() -> onnx.ModelProto:
    """One in a graph of a node, in a function."""
    run = helper.make_node("Run", [], ["z"], domain="evil.example")
    graph = helper.make_graph([run], "then", [], [helper.make_tensor_value_info("z", FLOAT, None)])
    choose = helper.make_node("If", ["c"], ["z"], then_branch=graph, else_branch=graph)
    function = helper.make_function(
        "ours", "F", ["c"], ["z"], [choose], [helper.make_opsetid("", 15)]
    )
    node = helper.make_node("F", ["x"], ["z"], domain="ours")
    return with_nodes(node, functions=[function], domains={"ours": 1})


def function(name: str, *calls: str) -> onnx.FunctionProto:
    nodes = [
        helper.make_node(one, ["x"], [f"z{at}"], domain="ours") for at, one in enumerate(calls)
    ]
    nodes.append(helper.make_node("Identity", ["x"], ["y"]))
    imports = [helper.make_opsetid("", 15), helper.make_opsetid("ours", 1)]
    return helper.make_function("ours", name, ["x"], ["y"], nodes, imports)


def calling(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    node = helper.make_node(functions[0].name, ["x"], ["z"], domain="ours")
    return with_nodes(node, functions=list(functions), domains={"ours": 1})


def deep_graphs() -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["c"], ["z"], then_branch=graph, else_branch=graph)
        node.attribute.pop()
        graph = helper.make_graph([node], "g", [], [])
    return with_nodes(*graph.node)


def initializer(**fields: object) -> onnx.ModelProto:
    made = with_nodes()
    made.graph.initializer.add(name="w", **fields)
    return made


def sparse() -> onnx.ModelProto:
    made = with_nodes()
    values = numpy_helper.from_array(np.array([1], np.float32), "w")
    indices = numpy_helper.from_array(np.array([0], np.int64), "i")
    made.graph.sparse_initializer.add(values=values, indices=indices, dims=[2**20, 2**20])
    return made


def doubled() -> onnx.ModelProto:
    """Concat of a tensor with itself, again and again."""
    nodes = [
        helper.make_node("Concat", [f"w{at}", f"w{at}"], [f"w{at + 1}"], axis=0) for at in range(40)
    ]
    return with_nodes(*nodes, weights={"w0": np.zeros(2, np.float32)})


def large_input() -> onnx.ModelProto:
    large: onnx_models.Value = ("x", FLOAT, ["N", 2**20, 2**20])
    return onnx_models.build([helper.make_node("Identity", ["x"], ["y"])], [large], [large])


def shared_external() -> onnx.ModelProto:
    made = onnx_models.external("model.onnx")
    for at in range(1000):
        weight = made.graph.initializer.add(name=f"w{at}", data_type=FLOAT, dims=[1000])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "model.onnx"), ("offset", "0"), ("length", "4000")):
            weight.external_data.add(key=key, value=value)
    return made


BY_NODES: dict[str, tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]] = {
    "constant-of-shape": (
        [helper.make_node("ConstantOfShape", ["s"], ["z"])],
        {"s": BILLION},
    ),
    "constant-of-constant": (
        [
            helper.make_node("Constant", [], ["s"], value_ints=[10**9, 10]),
            helper.make_node("ConstantOfShape", ["s"], ["z"]),
        ],
        {},
    ),
    "expand": (
        [helper.make_node("Expand", ["w", "s"], ["z"])],
        {"w": np.zeros(1, np.float32), "s": BILLION},
    ),
    "tile": (
        [helper.make_node("Tile", ["x", "s"], ["z"])],
        {"s": BILLION},
    ),
    "tiles-of-tiles": (
        [helper.make_node("Tile", [f"z{at}", "s"], [f"z{at + 1}"]) for at in range(5)],
        {"s": np.array([100, 100], np.int64)},
    ),
    "range": (
        [helper.make_node("Range", ["a", "b", "c"], ["z"])],
        {key: np.array(one, np.int64) for key, one in (("a", 0), ("b", 2**40), ("c", 1))},
    ),
    "one-hot": (
        [helper.make_node("OneHot", ["i", "d", "v"], ["z"])],
        {"i": np.zeros(9, np.int64), "d": np.array(2**40), "v": np.zeros(2, np.float32)},
    ),
    "pad": (
        [helper.make_node("Pad", ["w", "p"], ["z"])],
        {"w": np.zeros((1, 1), np.float32), "p": np.array([0, 0, 2**20, 2**20], np.int64)},
    ),
    "resize": (
        [helper.make_node("Resize", ["w", "", "f"], ["z"])],
        {"w": np.zeros((1, 1), np.float32), "f": np.array([1e6, 1e6], np.float32)},
    ),
    "random": ([helper.make_node("RandomNormal", [], ["z"], shape=[2**20, 2**20])], {}),
}

_MAKES = "graph: expected nodes that make at most 2147483648 bytes of its constants, got"
_BUILT_IN = "graph: expected operators that ONNX Runtime has built in, got"

#: Models that must be refused, by a name for each, and why.
HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "custom-operator": (custom_operator, f"{_BUILT_IN} evil.example::Run"),
    "custom-operator-within": (custom_operator_within, f"{_BUILT_IN} evil.example::Run"),
    "function-that-calls-itself": (
        lambda: calling(function("A", "B"), function("B", "A")),
        "functions: expected none that calls itself",
    ),
    "functions-doubled": (
        lambda: calling(
            *(function(f"F{at}", f"F{at + 1}", f"F{at + 1}") for at in range(30)), function("F30")
        ),
        "functions: expected at most 500000 nodes with all that they call, got 4294967295",
    ),
    "function-twice": (
        lambda: calling(function("A"), function("A")),
        "functions: expected each once, got ours::A twice",
    ),
    "deep-graphs": (deep_graphs, "graph: expected at most 16 graphs within each other"),
    "no-data": (
        lambda: initializer(data_type=FLOAT, dims=[2**20, 2**20]),
        "tensor w: expected data of 1099511627776 elements by its sizes, got none",
    ),
    "little-data": (
        lambda: initializer(data_type=FLOAT, dims=[2**20, 2**20], raw_data=b"1234"),
        "tensor w: expected 4398046511104 bytes of data by its sizes, got 4",
    ),
    "little-typed-data": (
        lambda: initializer(data_type=FLOAT, dims=[2**62, 2**62], float_data=[1.0]),
        "tensor w: expected data of about 2**124 elements by its sizes, got 1",
    ),
    "negative-size": (
        lambda: initializer(data_type=FLOAT, dims=[-1], raw_data=b"1234"),
        "tensor w: expected sizes of 0 or more, got [-1]",
    ),
    "sparse": (sparse, f"{_MAKES} 1099511627776"),
    "doubled": (doubled, _MAKES),
    "large-input": (large_input, "inputs.x: expected at most 268435456 bytes a row, got 43980465"),
    "shared-external": (shared_external, "external_data: expected tensors of at most 4 times"),
    **{
        name: (partial(with_nodes, *nodes, weights=weights), _MAKES)
        for name, (nodes, weights) in BY_NODES.items()
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_file_that_asks_for_too_much_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[name]
    path = onnx_models.write(tmp_path, "made", make())
    with pytest.raises(BundleError) as caught:
        graph_check.check(path)
    assert reason in str(caught.value)
    with pytest.raises(BundleError) as again:
        graph_check.check(hold(path, 2**30))
    assert str(again.value) == str(caught.value)


def test_models_of_many_kinds_are_accepted(tmp_path: Path) -> None:
    made = {name: make() for name, make in onnx_models.SERVED.items()}
    made |= {"digits": model({}), "photos": photo_model({}), "calls": calling(function("A"))}
    for name, one in made.items():
        graph_check.check(onnx_models.write(tmp_path, name, one))


def test_known_nets_are_accepted() -> None:
    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    nets = sorted(folder.glob("*.onnx"))
    assert len(nets) > 5
    for net in nets:
        graph_check.check(net)


def test_elements_in_any_field_count_as_data(tmp_path: Path) -> None:
    one = with_nodes()
    made: tuple[tuple[str, int, Any], ...] = (
        ("a", FLOAT, [1.0, 2.0]),
        ("b", TensorProto.INT32, [1, 2]),
        ("c", TensorProto.INT64, [1, -2]),
        ("d", TensorProto.DOUBLE, [1.0, 2.0]),
        ("e", TensorProto.UINT64, [1, 2]),
        ("f", TensorProto.STRING, [b"", b"b"]),
        ("g", TensorProto.BOOL, [True, False]),
        ("h", TensorProto.FLOAT16, [1.0, 2.0]),
        ("i", TensorProto.INT4, [1, 2]),
    )
    for name, type_, values in made:
        one.graph.initializer.append(helper.make_tensor(name, type_, [2], values))
    graph_check.check(onnx_models.write(tmp_path, "made", one))


@pytest.mark.parametrize("cut", range(1, 40))
def test_file_that_was_cut_is_refused_or_whole(cut: int) -> None:
    content = custom_operator_within().SerializeToString()
    held = HeldModel(Path("model.onnx"), content[: len(content) * cut // 40])
    with pytest.raises(BundleError):
        graph_check.check(held)


def test_damaged_file_is_refused_or_accepted_and_never_a_fault_of_ours() -> None:
    by = random.Random(20)
    made = [make() for make, _ in HOSTILE.values()] + [
        make() for make in onnx_models.SERVED.values()
    ]
    contents = [one for one in (each.SerializeToString() for each in made) if len(one) < 5000]
    for _ in range(3000):
        content = bytearray(by.choice(contents))
        for _ in range(by.randint(1, 5)):
            at = by.randrange(len(content))
            if by.random() < 0.7:
                content[at] = by.randrange(256)
            else:
                content[at : at + by.randint(0, 8)] = by.randbytes(by.randint(0, 4))
        with contextlib.suppress(BundleError):
            graph_check.check(HeldModel(Path("model.onnx"), bytes(content)))
