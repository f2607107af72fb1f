"""A Keras net becomes an ONNX graph that keeps the contract of a bundle."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import onnx

from convserve_bundle.contract import BATCH_AXIS, INPUT, OUTPUT
from convserve_trainer.errors import ExportError
from convserve_trainer.export import contract, layout, tensorflow_export

if TYPE_CHECKING:
    import keras


def export(model: "keras.Model") -> onnx.ModelProto:
    """Returns the net as ONNX, checked against the contract.

    Args:
        model: uint8 [N, H, W, C] to probabilities float32 [N, K].

    Raises:
        ExportError: the graph breaks the contract, or the file system refuses.
    """
    import onnxslim

    slim: onnx.ModelProto = onnxslim.slim(tensorflow_export.convert(model))
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
    layout.reshape_first(slim)
    contract.tidy(slim, model.name)
    contract.check(slim)
    return slim


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = _replaced(node.input, old, new)
        node.output[:] = _replaced(node.output, old, new)
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name


def _replaced(names: Iterable[str], old: str, new: str) -> list[str]:
    return [new if name == old else name for name in names]
