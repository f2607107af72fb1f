"""A graph of float32 becomes one of float16, between the cast of the pixels and the logits.

The softmax, or the sigmoid, stays in float32: rows so sum to 1 as ever, and it costs no node, since
the one cast back to float32 comes before it instead of after it.
"""

import onnx

from convserve_trainer.errors import ExportError

HEADS = ("Softmax", "Sigmoid")


def convert(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the graph in float16, its input and output as they were.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K], all float32; it is left as it is.

    Raises:
        ExportError: the graph has no softmax or sigmoid.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    first = head(model)
    body = onnx.ModelProto()
    body.CopyFrom(model)
    del body.graph.node[first:]
    body.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info(
            model.graph.node[first].input[0], onnx.TensorProto.FLOAT, None
        )
    )
    half: onnx.ModelProto = convert_float_to_float16(body, keep_io_types=True)
    half.graph.node.extend(model.graph.node[first:])
    half.graph.output[0].CopyFrom(model.graph.output[0])
    half.graph.ClearField("value_info")
    return half


def head(model: onnx.ModelProto) -> int:
    """Returns the index of the node that makes probabilities of logits.

    Raises:
        ExportError: there is none.
    """
    indices = [index for index, node in enumerate(model.graph.node) if node.op_type in HEADS]
    if not indices:
        raise ExportError(f"the graph has no {' or '.join(HEADS)}; publish it with float32")
    return indices[-1]
