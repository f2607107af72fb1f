"""A graph of float32 becomes one of int8, by the tools of ONNX Runtime, for CPUs.

Weights are int8 with a scale for each channel, activations uint8 with ranges that are taken from
pictures (static quantization), as QuantizeLinear and DequantizeLinear around every layer (QDQ): a
runtime makes one integer kernel of each such group. The last dense layer and the head stay float32:
they cost next to nothing, and 8 bits of a logit's range would be coarse.

Weights keep to 7 of their 8 bits. CPUs with AVX2 or AVX-512 but without VNNI add two products of
uint8 and int8 in 16 bits, and clip the sum in silence; with 7 bits it is 2 * 255 * 64 = 32,640 at
most, below 2^15. So the answers do not depend on the CPU.

Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convserve_bundle.contract import INPUT
from convserve_host import os_errors
from convserve_trainer.datasets.pictures import Pictures, Pixels
from convserve_trainer.errors import ExportError
from convserve_trainer.export import contract, float16

PRODUCTS = ("Conv", "Gemm", "MatMul")
#: What is computed in integers, or hands them on. All else stays float32.
QUANTIZED = (
    *PRODUCTS,
    *("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Reshape", "Transpose", "Flatten"),
)
HANDED_ON = ("Reshape", "Transpose", "Flatten")
BATCH = 16  # pictures whose activations are in memory at a time


def sample(train: Pictures, count: int, seed: int) -> Generator[Pixels, None, None]:
    """Yields a sample of training pictures, uint8 [N, H, W, C] a batch.

    Args:
        train: pictures that the net was trained on, never held-out ones: their ranges must not be
            known to what is scored on them.
        count: pictures; all where there are fewer.
        seed: that they are drawn with.
    """
    numbers = np.random.default_rng(seed).permutation(len(train))[:count]
    for pixels, _ in train.batches(numbers.tolist(), BATCH):
        yield pixels


def convert(model: onnx.ModelProto, calibration: Iterable[Pixels]) -> onnx.ModelProto:
    """Returns the graph in int8, its input and output as they were.

    Args:
        model: uint8 [N, H, W, C] to float32 [N, K], all float32; it is left as it is.
        calibration: pictures that the ranges of activations are taken from, one or more.

    Raises:
        ExportError: the graph has no softmax or sigmoid, or no layer that could be int8; or the
            file system refuses.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="convserve-") as folder:
            quantized = _quantized(model, calibration, Path(folder))
    except OSError as error:
        raise ExportError(
            f"int8 cannot be made in {tempfile.gettempdir()}: {os_errors.reason(error)}, or name "
            "another folder with TMPDIR"
        ) from error
    contract.tidy(quantized, model.graph.name)
    return quantized


def _quantized(
    model: onnx.ModelProto, calibration: Iterable[Pixels], folder: Path
) -> onnx.ModelProto:
    from onnxruntime import quantization

    # Files, because the tools move the tensors out of a model that they are handed in memory.
    exported, ready, made = (folder / name for name in ("float32", "ready", "int8"))
    onnx.save(model, exported)
    # Folds batch normalizations, and makes one Gemm of a product and a sum.
    quantization.quant_pre_process(exported, ready, skip_symbolic_shape=True)
    merged = onnx.load(ready)
    for number, node in enumerate(merged.graph.node):
        node.name = f"{number}"  # the quantizer knows nodes by their names
    left = _left_in_float32(merged)
    ranges = _dequantize_pixels(merged.graph)
    onnx.save(merged, ready)
    quantization.quantize_static(
        ready,
        made,
        _Reader(calibration),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTIZED),
        nodes_to_exclude=left,
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        extra_options={"TensorQuantOverrides": ranges},
    )
    return onnx.load(made)


def _left_in_float32(model: onnx.ModelProto) -> list[str]:
    """Returns the names of the nodes from the last dense layer on."""
    nodes = model.graph.node
    head = float16.head(model)
    products = [index for index in range(head) if nodes[index].op_type in PRODUCTS]
    if len(products) < 2:
        raise ExportError(
            "the graph has no layer that could be int8: all of it but the last dense layer is; "
            "publish it with float32"
        )
    return [node.name for node in nodes[products[-1] :]]


def _dequantize_pixels(graph: onnx.GraphProto) -> dict[str, list[dict[str, Any]]]:
    """Makes one DequantizeLinear of the pixels' cast and scaling; returns the ranges that it fixes.

    Pixels are 8 bits already. So they go into the first convolution as they are, exactly; else they
    would be cast, multiplied and rounded again, a third of the digit net's time. A graph that
    begins otherwise is left as it is.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    # Before it there may be a change of shape; see layout.py.
    at = 1 if graph.node[0].op_type in HANDED_ON else 0
    cast, scaling = graph.node[at], graph.node[at + 1]
    if (cast.op_type, scaling.op_type) != ("Cast", "Mul") or scaling.input[0] != cast.output[0]:
        return {}
    factor = constants.get(scaling.input[1])
    users = [node for node in graph.node if cast.output[0] in node.input]
    if factor is None or numpy_helper.to_array(factor).size != 1 or len(users) != 1:
        return {}
    scale = numpy_helper.to_array(factor).astype(np.float32).reshape(())
    zero = np.array(0, np.uint8)
    graph.initializer.remove(factor)
    graph.initializer.append(numpy_helper.from_array(scale, "pixels/scale"))
    graph.initializer.append(numpy_helper.from_array(zero, "pixels/zero"))
    scaled = scaling.output[0]
    inputs = [cast.input[0], "pixels/scale", "pixels/zero"]
    node = helper.make_node("DequantizeLinear", inputs, [scaled], name="pixels/dequantized")
    del graph.node[at : at + 2]
    graph.node.insert(at, node)
    same = {scaled}
    for node in graph.node:
        if node.op_type in HANDED_ON and node.input[0] in same:
            same.add(node.output[0])
    return {name: [{"scale": scale, "zero_point": zero}] for name in same}


class _Reader:
    """Pictures, as ONNX Runtime asks for them."""

    def __init__(self, calibration: Iterable[Pixels]) -> None:
        self._batches = iter(calibration)

    def get_next(self) -> dict[str, Pixels] | None:
        """Returns the next input; None at the end."""
        pixels = next(self._batches, None)
        return None if pixels is None else {INPUT: pixels}
