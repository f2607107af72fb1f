"""Small real bundles, made without training.

Of digits: lighting pixel i gives class i. Of photographs: the class is the strongest colour, or
each colour that is strong enough is a label.
"""

from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from convserve_protos.bundle_pb2 import (
    IMAGE_KIND_DIGITS,
    IMAGE_KIND_PHOTO,
    OUTPUT_MULTI_LABEL,
    PRECISION_UNSPECIFIED,
    InputSpec,
    Manifest,
    PictureStatistics,
    Precision,
)

CLASSES = 10
SHAPE = (28, 28, 1)

COLOURS = ("red", "green", "blue")
PHOTO_SHAPE = (150, 150, 3)
#: Of the model whose photographs have several labels; each is one that a float32 holds.
THRESHOLDS = (0.5, 0.25, 0.75)


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
            helper.make_node("Reshape", ["pixels", "flat"], ["rows"]),
            helper.make_node("Cast", ["rows"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "weights"], ["logits"]),
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
    return _whole(graph, metadata)


def photo_manifest(name: str = "colours") -> Manifest:
    height, width, channels = PHOTO_SHAPE
    return Manifest(
        format=1,
        name=name,
        labels=COLOURS,
        input=InputSpec(
            height=height,
            width=width,
            channels=channels,
            kind=IMAGE_KIND_PHOTO,
            resize="photo-bilinear/1",
        ),
        metrics={"accuracy": 1.0},
    )


def photo_model(metadata: dict[str, str]) -> onnx.ModelProto:
    """softmax(20 * mean of each channel / 255): uint8 [N, 150, 150, 3] to float32 [N, 3]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("Mul", ["means", "scale"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "strongest-colour",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *PHOTO_SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(COLOURS)])],
        [numpy_helper.from_array(np.array(20 / 255, np.float32), "scale")],
    )
    return _whole(graph, metadata)


def several_manifest(name: str) -> Manifest:
    """What the model says of itself whose photographs have any of the colours, or none."""
    stated = photo_manifest(name)
    stated.format = 2
    stated.output = OUTPUT_MULTI_LABEL
    stated.thresholds.extend(THRESHOLDS)
    return stated


def several_model(metadata: dict[str, str]) -> onnx.ModelProto:
    """sigmoid(20 * mean of each channel / 255 - 10): uint8 [N, 150, 150, 3] to float32 [N, 3]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("Mul", ["means", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
        ],
        "colours-that-are-there",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *PHOTO_SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(COLOURS)])],
        [
            numpy_helper.from_array(np.array(20 / 255, np.float32), "scale"),
            numpy_helper.from_array(np.array(-10, np.float32), "shift"),
        ],
    )
    return _whole(graph, metadata)


def write_bundle(
    models: Path,
    name: str = "mnist",
    version: int = 1,
    precision: Precision.ValueType = PRECISION_UNSPECIFIED,
) -> Path:
    """Publish the model of digits as models/name/version/model.onnx, whole or not at all.

    The precision is what the manifest says; the graph is float32.
    """
    stated = manifest(name)
    stated.precision = precision
    metadata = {"convserve.manifest": json_format.MessageToJson(stated)}
    return _write(model(metadata), models / name, version)


def write_photo_bundle(
    models: Path,
    name: str = "colours",
    version: int = 1,
    statistics: PictureStatistics | None = None,
    resize: str = "photo-bilinear/1",
) -> Path:
    """Publish the model of photographs in the same way."""
    stated = photo_manifest(name)
    stated.input.resize = resize
    stated.statistics.MergeFrom(statistics or PictureStatistics())
    metadata = {"convserve.manifest": json_format.MessageToJson(stated)}
    return _write(photo_model(metadata), models / name, version)


def write_several_bundle(models: Path, name: str = "tags", version: int = 1) -> Path:
    """Publish the model whose photographs have several labels in the same way."""
    metadata = {"convserve.manifest": json_format.MessageToJson(several_manifest(name))}
    return _write(several_model(metadata), models / name, version)


def _write(bundle: onnx.ModelProto, folder: Path, version: int) -> Path:
    hidden = folder / f".{version}.tmp"
    hidden.mkdir(parents=True)
    onnx.save(bundle, hidden / "model.onnx")
    return hidden.rename(folder / str(version)) / "model.onnx"


def _whole(graph: onnx.GraphProto, metadata: dict[str, str]) -> onnx.ModelProto:
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    for key, value in metadata.items():
        entry = result.metadata_props.add()
        entry.key, entry.value = key, value
    return result
