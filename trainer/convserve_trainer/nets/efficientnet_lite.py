"""EfficientNet-Lite0: EfficientNet-B0 for devices, without squeeze-and-excite, with ReLU6.

keras.applications does not have it. Its convolutions are cheap for CPUs, and in int8.

Source: Tan and Le 2019, "EfficientNet"; the variant's changes are in
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from typing import Any, NamedTuple

from convserve_trainer.nets import keras_backend

EPSILON = 1e-3  # of the normalisations


class _Blocks(NamedTuple):
    """Inverted residuals that follow each other; the stride is the first one's."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


BLOCKS = (
    *(_Blocks(1, 3, 1, 1, 16), _Blocks(2, 3, 2, 6, 24), _Blocks(2, 5, 2, 6, 40)),
    *(_Blocks(3, 3, 2, 6, 80), _Blocks(3, 5, 1, 6, 112), _Blocks(4, 5, 2, 6, 192)),
    _Blocks(1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


def efficientnet_lite0(values: Any) -> Any:
    """Returns the last features of the net, float32 [N, ceil(H/32), ceil(W/32), 1280].

    Args:
        values: RGB, -1 to 1, float32 [N, H, W, 3]; a tensor of a functional net.
    """
    values = _convolved(values, "stem", STEM, kernel=3, stride=2)
    number = 0
    for blocks in BLOCKS:
        for index in range(blocks.repeats):
            stride = blocks.stride if index == 0 else 1
            values = _block(values, f"block{number}", blocks._replace(stride=stride))
            number += 1
    return _convolved(values, "head", HEAD)


def _block(values: Any, name: str, shape: _Blocks) -> Any:
    """Returns what an inverted residual makes of values; Sandler et al. 2018, "MobileNetV2"."""
    kinds = keras_backend.load().layers
    begin, channels = values, values.shape[-1]
    if shape.expansion > 1:
        values = _convolved(values, f"{name}_expand", channels * shape.expansion)
    values = kinds.DepthwiseConv2D(
        shape.kernel,
        strides=shape.stride,
        padding="same",
        use_bias=False,
        name=f"{name}_depthwise_conv",
    )(values)
    values = _normalised(values, f"{name}_depthwise")
    values = _convolved(values, f"{name}_project", shape.filters, relu=False)
    if shape.stride == 1 and channels == shape.filters:
        values = kinds.Add(name=f"{name}_add")([values, begin])
    return values


def _convolved(
    values: Any, name: str, filters: int, kernel: int = 1, stride: int = 1, relu: bool = True
) -> Any:
    values = keras_backend.load().layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        name=f"{name}_conv",
    )(values)
    return _normalised(values, name, relu)


def _normalised(values: Any, name: str, relu: bool = True) -> Any:
    kinds = keras_backend.load().layers
    values = kinds.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(values)
    return kinds.ReLU(6.0, name=f"{name}_relu")(values) if relu else values
