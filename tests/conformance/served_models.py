"""ONNX models whose right answers the suite knows, as a server of any maker can load them.

    python -m tests.conformance.served_models FOLDER

writes FOLDER/NAME/1/model.onnx of each.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.conformance.tensors import DATATYPES

_OPSET = 17
_IR_VERSION = 8

#: Elements of ONNX by datatypes of the protocol; the name of the model ends with the latter.
ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def write_simple(models: Path) -> Path:
    """Writes the model of the public examples: OUTPUT0 the sum, OUTPUT1 the difference.

    Source: "simple" of Triton's example repository, [batch, 16] of INT32.
    """
    shape: list[str | int | None] = ["batch", 16]

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.INT32, shape)

    graph = helper.make_graph(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        "simple",
        [value("INPUT0"), value("INPUT1")],
        [value("OUTPUT0"), value("OUTPUT1")],
    )
    return _write(models, "simple", graph)


def write_identity(models: Path, datatype: str) -> Path:
    """Writes a model that answers what it is given: [batch, size] of FP32, else [batch, 8]."""
    shape: list[str | int | None] = ["batch", "size" if datatype == "FP32" else 8]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])],
        "identity",
        [helper.make_tensor_value_info("INPUT0", ELEMENTS[datatype], shape)],
        [helper.make_tensor_value_info("OUTPUT0", ELEMENTS[datatype], shape)],
    )
    return _write(models, f"identity_{datatype.lower()}", graph)


def _write(models: Path, name: str, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    file = models / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    onnx.save(model, file)
    return file


def write_all(models: Path, datatypes: Sequence[str] = tuple(DATATYPES)) -> None:
    """Writes `simple` and a model that repeats for each of some datatypes."""
    write_simple(models)
    for datatype in datatypes:
        write_identity(models, datatype)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
