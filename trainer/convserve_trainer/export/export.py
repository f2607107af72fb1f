"""A Keras net becomes an ONNX graph that keeps the contract of a bundle.

Input `pixels`: uint8 [N, H, W, C]. Output `probabilities`: float32 [N, K]. No nodes that only
compute shapes: an engine on a GPU runs them on the CPU, and they spoil CUDA graphs.
"""

import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from convserve_trainer.errors import ExportError
from convserve_trainer.host import refusals
from convserve_trainer.nets import keras_backend
from convserve_trainer.scores import onnxruntime_backend

if TYPE_CHECKING:
    import keras

OPSET = 15  # read by ONNX Runtime 1.10 and later
IR_VERSION = 8
INPUT = "pixels"
OUTPUT = "probabilities"
BATCH_AXIS = "N"
SHAPE_OPERATORS = frozenset({"Shape", "Gather", "Slice", "Concat"})


def export(model: "keras.Model") -> onnx.ModelProto:
    """Returns the net as ONNX, checked against the contract.

    Args:
        model: uint8 [N, H, W, C] to probabilities float32 [N, K].

    Raises:
        ExportError: the graph breaks the contract, or the file system refuses.
    """
    onnxruntime_backend.load()  # onnxslim imports it
    import onnxslim

    slim: onnx.ModelProto = onnxslim.slim(_converted(model))
    graph = slim.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ExportError(
            f"the graph has {len(graph.input)} inputs and {len(graph.output)} outputs; "
            "a bundle has one of each"
        )
    _rename(graph, graph.input[0].name, INPUT)
    _rename(graph, graph.output[0].name, OUTPUT)
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    tidy(slim, model.name)
    check(slim)
    return slim


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


def by_tensorflow(model: "keras.Model") -> onnx.ModelProto:
    """Returns the net as the converters leave it.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K], of Keras on TensorFlow.

    Raises:
        ExportError: the file system refuses.
    """
    keras = keras_backend.load()
    signature = [keras.InputSpec(shape=model.input_shape, dtype="uint8", name=INPUT)]
    with tempfile.TemporaryDirectory(prefix="convserve-") as folder, warnings.catch_warnings():
        # Keras looks whether NumPy still has this alias, for tf2onnx.
        warnings.filterwarnings("ignore", r"In the future `np\.object`", FutureWarning)
        path = Path(folder) / "model.onnx"
        try:
            model.export(
                path, format="onnx", verbose=False, input_signature=signature, opset_version=OPSET
            )
            return onnx.load(path)
        except OSError as error:
            raise cannot_write(folder, error) from error


def cannot_write(folder: str, error: OSError) -> ExportError:
    """Returns the error of an export that gets no room for its files."""
    return ExportError(
        f"the export cannot write to {folder}: {refusals.reason(error)}, or name another folder "
        "with TMPDIR"
    )


def _converted(model: "keras.Model") -> onnx.ModelProto:
    if keras_backend.chosen() == "tensorflow":
        return by_tensorflow(model)
    from convserve_trainer.export import export_process  # imports this module

    return export_process.converted(model)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = _replaced(node.input, old, new)
        node.output[:] = _replaced(node.output, old, new)
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name


def _replaced(names: Iterable[str], old: str, new: str) -> list[str]:
    return [new if name == old else name for name in names]
