"""What a device rounds in a reduced precision, imitated in float32 on any CPU.

A publisher needs no GPU, and no CPU with matrix units. ONNX Runtime alone would not show it: on a
CPU it ignores TensorFloat-32 and bfloat16 and, where it has no kernels for float16, computes that
in float32 and rounds the weights alone. Not imitated are the order of a device's sums and the
algorithms of its convolutions.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_FLOAT16,
    PRECISION_TENSOR_FLOAT_32,
    Precision,
)
from convserve_trainer.export import float16

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
SPLITTER = "splitter"
#: Bits of float32's 24 that a number loses.
LOST_BITS = {PRECISION_TENSOR_FLOAT_32: 13, PRECISION_BFLOAT16: 16}


def imitated(model: onnx.ModelProto, precision: Precision.ValueType) -> onnx.ModelProto:
    """Returns the graph with a device's roundings as nodes of their own.

    With TensorFloat-32 the two factors of every convolution and product are rounded, with float16
    and bfloat16 everything that a node takes or gives up to the logits.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K], all float32; it is left as it is.
        precision: TENSOR_FLOAT_32, FLOAT16 or BFLOAT16.

    Raises:
        ExportError: the graph has no softmax or sigmoid.
    """
    floats = _floats(model)
    last = float16.head(model)
    nodes_of = _float16 if precision == PRECISION_FLOAT16 else _shortened
    imitation = onnx.ModelProto()
    imitation.CopyFrom(model)
    graph = imitation.graph
    graph.ClearField("node")
    splitter = np.array(2 ** LOST_BITS.get(precision, 0) + 1, np.float32)
    graph.initializer.append(numpy_helper.from_array(splitter, SPLITTER))
    rounded: set[str] = set()
    for number, node in enumerate(model.graph.node):
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for index in _rounds(node, precision) if number <= last else ():
            name = node.input[index]
            if name not in floats:
                continue
            if name not in rounded:
                graph.node.extend(nodes_of(name))
                rounded.add(name)
            changed.input[index] = _rounded(name)
        graph.node.append(changed)
    return imitation


def _rounds(node: onnx.NodeProto, precision: Precision.ValueType) -> Sequence[int]:
    """Returns the indices of the inputs that are rounded."""
    if precision == PRECISION_TENSOR_FLOAT_32:
        return (0, 1) if node.op_type in PRODUCTS else ()  # a third is added, not multiplied
    return range(len(node.input))


def _floats(model: onnx.ModelProto) -> set[str]:
    """Returns the names of all values of float32."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    inner = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    constant = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name for name, kind in (inner | constant).items() if kind == TensorProto.FLOAT}


def _rounded(name: str) -> str:
    return f"{name}/rounded"


def _float16(name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [name], [f"{name}/half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{name}/half"], [_rounded(name)], to=TensorProto.FLOAT),
    ]


def _shortened(name: str) -> list[onnx.NodeProto]:
    """Returns nodes that keep all of 24 bits but the lower LOST_BITS, rounded to the nearest.

    Source: T. J. Dekker, "A floating-point technique for extending the available precision", 1971:
    with c = (2^s + 1) x, the upper part of x, without its lower s bits, is c - (c - x).
    """
    return [
        helper.make_node("Mul", [name, SPLITTER], [f"{name}/c"]),
        helper.make_node("Sub", [f"{name}/c", name], [f"{name}/c-x"]),
        helper.make_node("Sub", [f"{name}/c", f"{name}/c-x"], [_rounded(name)]),
    ]
