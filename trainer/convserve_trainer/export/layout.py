"""Pixels are brought into the layout of the convolutions before anything is computed of them.

A net of one channel scales pixels [N, H, W, 1] and then makes [N, 1, H, W] of them, which moves
nothing in memory. Over a last axis of 1 ONNX Runtime's operators of two inputs go element by
element, 8 ns each, in place of a row at a time. So the change of shape, which costs nothing, comes
first; every number stays the same, bit for bit.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from convserve_bundle.contract import INPUT
from convserve_bundle.pixel_arithmetic import ELEMENTWISE, SHAPING, SPREAD


def reshape_first(model: onnx.ModelProto) -> bool:
    """Moves the change of the pixels' shape before the arithmetic on them, where there is one.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K]; changed in place. One of several channels,
            whose change of shape moves pixels in memory, is left as it is.

    Returns: whether something was moved.
    """
    graph = model.graph
    chain, shaping = _beginning(graph)
    if shaping is None or not chain or _channels(graph) != 1:
        return False
    scalars = {tensor.name for tensor in graph.initializer if _size(tensor) == 1}
    values = {INPUT, *(node.output[0] for node in chain)}
    if not all(name in scalars or name in values for node in chain for name in node.input):
        return False
    # The last of the chain now ends in what the change of shape ended in.
    first, last = chain[0], chain[-1]
    end = shaping.output[0]
    shaping.output[0] = f"{INPUT}/shaped"
    shaping.input[0] = INPUT
    first.input[:] = [shaping.output[0] if name == INPUT else name for name in first.input]
    last.output[0] = end
    graph.node.remove(shaping)
    graph.node.insert(0, shaping)
    graph.ClearField("value_info")
    return True


def spread_over_one(model: onnx.ModelProto) -> list[str]:
    """Returns the operators of two inputs that work on pictures with a last axis of 1.

    Args:
        model: A valid one.
    """
    shapes = onnx.shape_inference.infer_shapes(model).graph
    narrow = {
        value.name
        for value in (*shapes.value_info, *shapes.input)
        if len(dims := value.type.tensor_type.shape.dim) == 4
        and dims[3].dim_value == 1
        and dims[2].dim_value != 1
    }
    return [
        node.op_type
        for node in model.graph.node
        if node.op_type in SPREAD and narrow.intersection(node.output)
    ]


def _beginning(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], onnx.NodeProto | None]:
    """Returns the nodes that pixels go through one by one, and the change of shape after them."""
    chain: list[onnx.NodeProto] = []
    value = INPUT
    while True:
        users = [node for node in graph.node if value in node.input]
        if len(users) != 1 or any(value == output.name for output in graph.output):
            return chain, None
        [node] = users
        if node.op_type in SHAPING:
            return chain, node
        if node.op_type not in ELEMENTWISE:
            return chain, None
        chain.append(node)
        value = node.output[0]


def _channels(graph: onnx.GraphProto) -> int:
    return int(graph.input[0].type.tensor_type.shape.dim[-1].dim_value)


def _size(tensor: onnx.TensorProto) -> int:
    return int(np.prod(numpy_helper.to_array(tensor).shape))
