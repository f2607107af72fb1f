"""A model file as PyTorch code, to compare what devices do at the same precision."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from benchmarks.harness.command import BenchmarkError

#: Makes the output of a node: from its inputs and its attributes.
Operator = Callable[[Sequence[Any], Mapping[str, Any]], Any]


class TorchNet:
    """The graph of a bundle, node by node, on the first CUDA device.

    Args:
        file: the model file.

    Raises:
        BenchmarkError: if it has a node that is not known here.
    """

    def __init__(self, file: Path) -> None:
        import torch  # type: ignore[import-not-found]

        graph = onnx.load(file).graph
        self._constants = {
            each.name: torch.tensor(numpy_helper.to_array(each), device="cuda")
            for each in graph.initializer
        }
        self._input, self._output = graph.input[0].name, graph.output[0].name
        operators = _operators(
            {
                name: value.tolist()
                for name, value in self._constants.items()
                if value.dtype == torch.int64
            }
        )
        self._steps: list[tuple[Operator, onnx.NodeProto, dict[str, Any]]] = []
        for node in graph.node:
            attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            if node.op_type not in operators or any(attributes.get("pads", ())):
                raise BenchmarkError(f"{node.op_type} {attributes} is not known to {__name__}")
            self._steps.append((operators[node.op_type], node, attributes))

    def __call__(self, pixels: Any) -> Any:
        """Probabilities [N, K] for pixels uint8 [N, H, W, C], both on the device."""
        values = {**self._constants, self._input: pixels}
        for operator, node, attributes in self._steps:
            inputs = [values[name] for name in node.input]
            values[node.output[0]] = operator(inputs, {**attributes, "inputs": list(node.input)})
        return values[self._output]

    def captured(self, pixels: Any) -> tuple[Callable[[], None], Any]:
        """Captures a run as a CUDA graph.

        Args:
            pixels: uint8 [N, H, W, C] on the device; may be rewritten between replays.

        Returns: what replays it and waits, and the probabilities that it leaves behind.
        """
        import torch

        with torch.inference_mode():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):  # cuDNN chooses its algorithms, and allocates memory.
                    self(pixels)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                probabilities = self(pixels)

        def replay() -> None:
            graph.replay()
            torch.cuda.synchronize()

        # The graph has the address of the pixels, and does not keep them.
        replay.pixels = pixels  # type: ignore[attr-defined]
        return replay, probabilities


def _operators(shapes: Mapping[str, list[int]]) -> dict[str, Operator]:
    """What there is, by its name in ONNX.

    Args:
        shapes: constants that say how to reshape, which must not be read from the device.
    """
    from torch.nn import functional as f  # type: ignore[import-not-found]

    return {
        "Add": lambda x, _: x[0] + x[1],
        "Cast": lambda x, _: x[0].float(),
        "Conv": lambda x, attributes: f.conv2d(*x, stride=attributes["strides"]),
        "Gemm": lambda x, attributes: f.linear(
            x[0], x[1] if attributes.get("transB") else x[1].T, *x[2:]
        ),
        "MatMul": lambda x, _: x[0] @ x[1],
        "MaxPool": lambda x, attributes: f.max_pool2d(
            x[0], attributes["kernel_shape"], attributes["strides"]
        ),
        "Mul": lambda x, _: x[0] * x[1],
        "Relu": lambda x, _: f.relu(x[0]),
        "Reshape": lambda x, attributes: x[0].reshape(shapes[attributes["inputs"][1]]),
        "Sigmoid": lambda x, _: x[0].sigmoid(),
        "Softmax": lambda x, _: x[0].softmax(-1),
        "Sub": lambda x, _: x[0] - x[1],
        "Transpose": lambda x, attributes: x[0].permute(*attributes["perm"]),
    }
