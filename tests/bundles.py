"""Small real bundles, made without training: lighting pixel i gives class i."""

from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from convserve_protos.bundle_pb2 import IMAGE_KIND_DIGITS, InputSpec, Manifest

CLASSES = 10
SHAPE = (28, 28, 1)


def digit_of(class_: int) -> NDArray[np.uint8]:
    """The image that the model of write_bundle takes for a class: uint8 [28, 28, 1]."""
    image = np.zeros(SHAPE, np.uint8)
    image[0, class_, 0] = 255
    return image


def manifest(name: str = "mnist") -> Manifest:
    height, width, channels = SHAPE
    return Manifest(
        format=1,
        name=name,
        labels=[str(label) for label in range(CLASSES)],
        input=InputSpec(
            height=height,
            width=width,
            channels=channels,
            kind=IMAGE_KIND_DIGITS,
            resize="mnist-centre/1",
        ),
        metrics={"accuracy": 1.0},
    )


def model(metadata: dict[str, str]) -> onnx.ModelProto:
    """softmax(20 * pixel i / 255): uint8 [N, 28, 28, 1] to float32 [N, 10]."""
    size = int(np.prod(SHAPE))
    weights = np.zeros((size, CLASSES), np.float32)
    weights[np.arange(CLASSES), np.arange(CLASSES)] = 20.0
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "flat"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "lit-pixel",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        [
            numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
            numpy_helper.from_array(np.array([-1, size], np.int64), "flat"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    for key, value in metadata.items():
        entry = result.metadata_props.add()
        entry.key, entry.value = key, value
    return result


def write_bundle(models: Path, name: str = "mnist", version: int = 1) -> Path:
    """Publish the model as models/name/version/model.onnx, whole or not at all."""
    said = {"convserve.manifest": json_format.MessageToJson(manifest(name))}
    hidden = models / name / f".{version}.tmp"
    hidden.mkdir(parents=True)
    onnx.save(model(said), hidden / "model.onnx")
    return hidden.rename(models / name / str(version)) / "model.onnx"
