"""The contract that the graph of a bundle keeps.

Input `pixels`: uint8 [N, H, W, C]. Output `probabilities`: float32 [N, K]. No nodes that only
compute shapes: an engine on a GPU runs them on the CPU, and they spoil CUDA graphs.
"""

import onnx

from convserve_bundle.contract import BATCH_AXIS, INPUT, OUTPUT
from convserve_trainer.errors import ExportError
from convserve_trainer.export import layout

OPSET = 15  # read by ONNX Runtime 1.10 and later
IR_VERSION = 8
SHAPE_OPERATORS = frozenset({"Shape", "Gather", "Slice", "Concat"})


def check(model: onnx.ModelProto) -> None:
    """Checks a graph against the contract.

    Raises:
        ExportError: it breaks it; the message says where.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    shaping = sorted(SHAPE_OPERATORS.intersection(operators(model)))
    if shaping:
        raise ExportError(f"the exported graph still has {', '.join(shaping)}")
    if spread := layout.spread_over_one(model):
        raise ExportError(
            f"the exported graph has {', '.join(spread)} over a last axis of 1, which is slow; its "
            "change of shape should come first"
        )
    found = [describe(value) for value in (*model.graph.input, *model.graph.output)]
    inputs, outputs = found[: len(model.graph.input)], found[len(model.graph.input) :]
    if len(inputs) != 1 or not inputs[0].startswith(f"{INPUT}: uint8 [{BATCH_AXIS}, "):
        raise ExportError(f"input {inputs}, expected {INPUT}: uint8 [{BATCH_AXIS}, H, W, C]")
    if len(outputs) != 1 or not outputs[0].startswith(f"{OUTPUT}: float32 [{BATCH_AXIS}, "):
        raise ExportError(f"output {outputs}, expected {OUTPUT}: float32 [{BATCH_AXIS}, K]")


def operators(model: onnx.ModelProto) -> list[str]:
    """Returns the operators of the nodes, in the order they run."""
    return [node.op_type for node in model.graph.node]


def describe(value: onnx.ValueInfoProto) -> str:
    """Returns an input or output in words: `pixels: uint8 [N, 28, 28, 1]`."""
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    axes = [dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim]
    return f"{value.name}: {dtype} [{', '.join(axes)}]"


def tidy(model: onnx.ModelProto, name: str) -> None:
    """Drops what the converters leave behind and no runtime needs."""
    model.ir_version = IR_VERSION
    model.producer_name = "convserve"
    model.ClearField("producer_version")
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    used = {node.domain for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.graph.name = name
    model.graph.ClearField("doc_string")
    model.graph.ClearField("value_info")
