"""What `inspect` shows of a bundle: facts from its graph, then the whole manifest."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import json_format

from convserve_bundle.folder import find_bundle
from convserve_trainer.bundles import bundle
from convserve_trainer.export import contract, precisions

MULTIPLYING = ("Conv", "Gemm", "MatMul")  # the rest is a few per cent in a convnet


@dataclass(frozen=True)
class Description:
    """Facts of a bundle.

    Attributes:
        path: of model.onnx.
        size: of the file, bytes.
        parameters: trainable ones.
        operations: multiplications and additions of convolutions and products, for one picture.
        precision: as `--precision` says it.
        inputs: of the graph, as `pixels: uint8 [N, 28, 28, 1]`.
        outputs: of the graph, likewise.
        operators: of the nodes, in the order they run.
        opset: of ONNX.
        ir_version: of the file format.
        manifest: the proto3 JSON mapping, absent values included.
    """

    path: str
    size: int
    parameters: int
    operations: int
    precision: str
    inputs: list[str]
    outputs: list[str]
    operators: list[str]
    opset: int
    ir_version: int
    manifest: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Returns the facts for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        shaping = sorted(contract.SHAPE_OPERATORS.intersection(self.operators))
        looked_for = "/".join(sorted(contract.SHAPE_OPERATORS))
        lines = [
            ("bundle", f"{self.path} ({self.size:,} bytes)"),
            ("parameters", f"{self.parameters:,}"),
            ("operations", f"{self.operations:,} a picture"),
            ("precision", self.precision),
            *(("input", text) for text in self.inputs),
            *(("output", text) for text in self.outputs),
            ("nodes", f"{len(self.operators)}: {', '.join(self.operators)}"),
            ("shape nodes", f"{', '.join(shaping) or 'none'} (looked for {looked_for})"),
            ("opset", f"{self.opset}, IR version {self.ir_version}"),
        ]
        text = "\n".join(f"{name:<12} {value}" for name, value in lines)
        return f"{text}\n\nmanifest\n" + "\n".join(_readable(self.manifest, "  "))


def describe(path: Path) -> Description:
    """Returns the facts of a bundle.

    Raises:
        BundleError: there is no bundle at this path.
    """
    file = find_bundle(path)
    model, manifest = bundle.read(file)
    shown = json_format.MessageToDict(manifest, always_print_fields_with_no_presence=True)
    # A map of protobuf has no order.
    shown["metrics"] = dict(sorted(shown["metrics"].items()))
    return Description(
        path=str(file),
        size=file.stat().st_size,
        parameters=manifest.parameters,
        operations=count_operations(model),
        precision=precisions.name(manifest.precision),
        inputs=[contract.describe(value) for value in model.graph.input],
        outputs=[contract.describe(value) for value in model.graph.output],
        operators=contract.operators(model),
        opset=next((entry.version for entry in model.opset_import if entry.domain == ""), 0),
        ir_version=model.ir_version,
        manifest=shown,
    )


def _readable(values: dict[str, Any], indent: str) -> list[str]:
    width = max(map(len, values), default=0)
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_readable(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name:<{width}}  {shown}".rstrip())
    return lines


def count_operations(model: onnx.ModelProto) -> int:
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
    for other in graph.node:  # with int8 a scaling lies between
        if name in other.output and other.op_type == "DequantizeLinear":
            return str(other.input[0])
    return name


def _terms(node: onnx.NodeProto, shape: list[int]) -> int:
    """Returns how many products make one value."""
    if node.op_type == "Conv":
        return math.prod(shape[1:])  # [filters, channels of a group, rows, columns]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return shape[1] if transposed else shape[0]
