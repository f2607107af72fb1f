"""A convnet of the lecture's shape with random weights, as a bundle: made without training."""

from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format
from onnx import TensorProto, helper, numpy_helper

from convserve_protos.bundle_pb2 import Manifest
from tests.bundles import CLASSES, SHAPE

#: Channels of the three convolutions.
_CHANNELS = (32, 64, 64)


def write_convnet(folder: Path, about: Manifest, *, seed: int) -> Path:
    """Write NAME/1/model.onnx; returns its path."""
    path = folder / about.name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(_convnet(json_format.MessageToJson(about), seed).SerializeToString())
    return path


def _convnet(about: str, seed: int) -> onnx.ModelProto:
    random = np.random.default_rng(seed)
    weights = [numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["map0"], perm=[0, 3, 1, 2]),
    ]

    def weight(name: str, *shape: int) -> str:
        # He's scale keeps the activations as large as the pixels.
        fan_in = int(np.prod(shape[1:]))
        values = random.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    size, into = SHAPE[0], SHAPE[2]
    for number, channels in enumerate(_CHANNELS):
        kernel = weight(f"kernel{number}", channels, into, 3, 3)
        nodes.append(helper.make_node("Conv", [f"map{number}", kernel], [f"conv{number}"]))
        size -= 2
        last = number == len(_CHANNELS) - 1
        active = "features" if last else f"active{number}"
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [active]))
        if not last:
            pooled = [f"map{number + 1}"]
            nodes.append(
                helper.make_node("MaxPool", [active], pooled, kernel_shape=[2, 2], strides=[2, 2])
            )
            size //= 2
        into = channels
    weights.append(numpy_helper.from_array(np.array([-1, into * size * size], np.int64), "flat"))
    nodes += [
        helper.make_node("Reshape", ["features", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", weight("dense", CLASSES, into * size * size)],
                         ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "convnet",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        weights,
    )
    opset = [helper.make_opsetid("", 15)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    helper.set_model_props(made, {"convserve.manifest": about})
    onnx.checker.check_model(made)
    return made
