"""How many arithmetic operations a net takes for one picture."""

import math

import onnx

MULTIPLYING = ("Conv", "Gemm", "MatMul")  # the rest is a few per cent in a convnet


def count(model: onnx.ModelProto) -> int:
    """Returns the multiplications and additions of all convolutions and products, for one picture.

    A multiplication and the addition of its result are two, as is usual for FLOPs.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K]; its weights are constants.
    """
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    alone.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    alone.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(alone, data_prop=True).graph
    sizes = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    weights = {weight.name: list(weight.dims) for weight in graph.initializer}
    return sum(
        2 * sizes[node.output[0]] * _terms(node, weights[_weight(node, graph)])
        for node in graph.node
        if node.op_type in MULTIPLYING
    )


def _weight(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    """Returns the name of the constant that a node multiplies with."""
    name: str = node.input[1]
    for other in graph.node:  # of int8 there stands a scaling between
        if name in other.output and other.op_type == "DequantizeLinear":
            return str(other.input[0])
    return name


def _terms(node: onnx.NodeProto, shape: list[int]) -> int:
    """Returns how many products make one value."""
    if node.op_type == "Conv":
        return math.prod(shape[1:])  # [filters, channels of a group, rows, columns]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return shape[1] if transposed else shape[0]
