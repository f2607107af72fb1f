"""Small ONNX files that are not bundles, of many kinds, made without training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

#: The oldest versions that all supported ONNX Runtimes read.
_OPSET, _IR = 15, 8

_FLOAT, _HALF, _INT32, _INT64 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT32,
    TensorProto.INT64,
)

#: Name, type and sizes of an input or output; sizes that are open have a name, or None.
Value = tuple[str, int, Sequence[int | str | None] | None]


def write(models: Path, name: str, model: onnx.ModelProto, version: int = 1) -> Path:
    """Publish a model as models/name/version/model.onnx; returns the path."""
    path = models / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.SerializeToString())
    return path


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: dict[str, NDArray[Any]] | None = None,
    domains: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of nodes, in operator set 15."""
    graph = helper.make_graph(
        nodes,
        "made-for-a-test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", _OPSET)]
    imports += [helper.make_opsetid(name, number) for name, number in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=_IR)


def add_and_subtract() -> onnx.ModelProto:
    """OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1: int32 [N, 16].

    The model `simple` of the public examples of Open Inference.
    """
    sizes: list[int | str | None] = ["N", 16]
    return build(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [("INPUT0", _INT32, sizes), ("INPUT1", _INT32, sizes)],
        [("OUTPUT0", _INT32, sizes), ("OUTPUT1", _INT32, sizes)],
    )


def two_inputs() -> onnx.ModelProto:
    """y = x * w + n, by row: float32 [N, 3], int64 [N, 1] to float32 [N, 3]."""
    return build(
        [
            helper.make_node("Cast", ["n"], ["number"], to=_FLOAT),
            helper.make_node("Mul", ["x", "w"], ["scaled"]),
            helper.make_node("Add", ["scaled", "number"], ["y"]),
        ],
        [("x", _FLOAT, ["N", 3]), ("n", _INT64, ["N", 1])],
        [("y", _FLOAT, ["N", 3])],
        {"w": np.array([1, 2, 3], np.float32)},
    )


def embedding(entries: int = 5) -> onnx.ModelProto:
    """vector = table[ids], mean over a sequence: int64 [N, sequence] to float32 [N, 2].

    Entry i is [i, -i]. Another id than 0 to entries - 1 (or from its end) is an error.
    """
    table = np.stack([np.arange(entries), -np.arange(entries)], axis=1).astype(np.float32)
    return build(
        [
            helper.make_node("Gather", ["table", "ids"], ["vectors"]),
            helper.make_node("ReduceMean", ["vectors"], ["mean"], axes=[1], keepdims=0),
        ],
        [("ids", _INT64, ["batch", "sequence"])],
        [("mean", _FLOAT, ["batch", 2])],
        {"table": table},
    )


def doubled_sequence() -> onnx.ModelProto:
    """y = 2 * x: float32 [N, sequence] to float32 [N, sequence]."""
    return build(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", _FLOAT, ["N", "sequence"])],
        [("y", _FLOAT, ["N", "sequence"])],
    )


def half_precision() -> onnx.ModelProto:
    """y = x + 1: float16 [N, 4] to float16 [N, 4]."""
    return build(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        [("x", _HALF, ["N", 4])],
        [("y", _HALF, ["N", 4])],
        {"one": np.array(1, np.float16)},
    )


def choice() -> onnx.ModelProto:
    """y = x if yes else 0: bool [N, 2], float64 [N, 2] to float64 [N, 2]."""
    return build(
        [helper.make_node("Where", ["yes", "x", "zero"], ["y"])],
        [("yes", TensorProto.BOOL, [None, 2]), ("x", TensorProto.DOUBLE, [None, 2])],
        [("y", TensorProto.DOUBLE, [None, 2])],
        {"zero": np.array(0, np.float64)},
    )


def scalar_output() -> onnx.ModelProto:
    """total = sum of x: float32 [N, 3] to float32 []."""
    return build(
        [helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)],
        [("x", _FLOAT, ["N", 3])],
        [("total", _FLOAT, [])],
    )


def scalar_input() -> onnx.ModelProto:
    """y = x * factor: float32 [N, 3], float32 [] to float32 [N, 3]."""
    return build(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", _FLOAT, ["N", 3]), ("factor", _FLOAT, [])],
        [("y", _FLOAT, ["N", 3])],
    )


def no_batch_axis() -> onnx.ModelProto:
    """y = transpose of x: float32 [2, 3] to float32 [3, 2]."""
    return build(
        [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])],
        [("x", _FLOAT, [2, 3])],
        [("y", _FLOAT, [3, 2])],
    )


def mixed_rows() -> onnx.ModelProto:
    """y = x - mean of x over the rows: float32 [N, 2]; looks batched, and is not."""
    return build(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [("x", _FLOAT, ["N", 2])],
        [("y", _FLOAT, ["N", 2])],
    )


def pairs() -> onnx.ModelProto:
    """y[i, j] = x[i] * z[j]: float32 [A, 2], float32 [B, 2] to float32 [A, B]."""
    return build(
        [
            helper.make_node("Transpose", ["z"], ["columns"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "columns"], ["y"]),
        ],
        [("x", _FLOAT, ["A", 2]), ("z", _FLOAT, ["B", 2])],
        [("y", _FLOAT, ["A", "B"])],
    )


def text() -> onnx.ModelProto:
    """y = x: string [N] to string [N]; no server of ours has texts."""
    return build(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.STRING, ["N"])],
        [("y", TensorProto.STRING, ["N"])],
    )


def brain_float() -> onnx.ModelProto:
    """y = x: bfloat16 [N], which NumPy does not have."""
    return build(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.BFLOAT16, ["N"])],
        [("y", TensorProto.BFLOAT16, ["N"])],
    )


def sequence_output() -> onnx.ModelProto:
    """y = parts of x: float32 [N, 2] to a sequence of tensors."""
    model = build(
        [helper.make_node("SplitToSequence", ["x"], ["y"], axis=0)],
        [("x", _FLOAT, ["N", 2])],
        [],
    )
    model.graph.output.append(helper.make_tensor_sequence_value_info("y", _FLOAT, None))
    return model


def default_input() -> onnx.ModelProto:
    """y = x + bias, where bias is an input with a default: float32 [N, 2], as of old files."""
    return build(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [("x", _FLOAT, ["N", 2]), ("bias", _FLOAT, [2])],
        [("y", _FLOAT, ["N", 2])],
        {"bias": np.array([10, 20], np.float32)},
    )


def on_cpu_alone() -> onnx.ModelProto:
    """y = x / its L1 norm, by an operator that ONNX Runtime has for CPUs alone: float32 [N, 3]."""
    return build(
        [
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("Normalizer", ["twice"], ["y"], domain="ai.onnx.ml", norm="L1"),
        ],
        [("x", _FLOAT, ["N", 3])],
        [("y", _FLOAT, ["N", 3])],
        domains={"ai.onnx.ml": 1},
    )


def external(location: str = "weights.bin", size: int = 3) -> onnx.ModelProto:
    """y = x + w, with w (float32 [size]) in another file: float32 [N, size]."""
    model = build(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [("x", _FLOAT, ["N", size])],
        [("y", _FLOAT, ["N", size])],
    )
    weight = model.graph.initializer.add(name="w", data_type=_FLOAT, dims=[size])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * size))):
        weight.external_data.add(key=key, value=value)
    return model


#: Those that can be served and need no other file, by a name for each.
SERVED: dict[str, Callable[[], onnx.ModelProto]] = {
    "simple": add_and_subtract,
    "two-inputs": two_inputs,
    "embedding": embedding,
    "sequence": doubled_sequence,
    "half": half_precision,
    "choice": choice,
    "scalar-output": scalar_output,
    "scalar-input": scalar_input,
    "no-batch-axis": no_batch_axis,
    "mixed-rows": mixed_rows,
    "pairs": pairs,
    "default-input": default_input,
    "on-cpu-alone": on_cpu_alone,
}

#: Those that cannot be served, and the reason.
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "text": (text, r"inputs\.x: expected a tensor of .*, got tensor\(string\)"),
    "brain-float": (brain_float, r"inputs\.x: expected a tensor of .*, got tensor\(bfloat16\)"),
    "sequence-output": (
        sequence_output,
        r"outputs\.y: expected a tensor of .*, got seq\(tensor\(float\)\)",
    ),
}
