"""Sizes by formula: of outputs, of receptive fields, of the weights of a layer.

The layers of a net are walked along the graph and distinguished by their types, so that a net need
not be a plain stack.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convserve_trainer.nets import keras_backend

if TYPE_CHECKING:
    import keras

#: Layers that change no shape, look at no neighbour, or are idle outside training.
_POINTWISE = (
    *(
        "InputLayer",
        "Rescaling",
        "Activation",
        "ReLU",
        "LeakyReLU",
        "Softmax",
        "BatchNormalization",
    ),
    *("Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Identity"),
    *("Add", "Average", "Concatenate", "Multiply", "Maximum", "Subtract"),
)
_POOLINGS = ("MaxPooling2D", "AveragePooling2D")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")


@dataclass(frozen=True)
class Field:
    """What part of the picture one value of a layer depends on.

    Attributes:
        size: rows and columns of it; None for the whole picture.
        jump: pixels between the fields of two neighbours.
        start: first pixel of the first value's field, below 0 where it begins in the padding.
    """

    size: int | None
    jump: int = 1
    start: int = 0

    def through(self, window: int, stride: int, before: int = 0) -> "Field":
        """Returns the field after windows of so many values, so many apart.

        Args:
            window: values along a side.
            stride: from one window to the next.
            before: values of padding before the first.

        Source: A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural
        Networks", Distill 2019, equations 2 and 5.
        """
        if self.size is None:
            return self
        size = self.size + (window - 1) * self.jump
        return Field(size, self.jump * stride, self.start - before * self.jump)

    def square(self, row: int, column: int) -> tuple[int, int, int]:
        """Returns the first row and column, and the size, of what the value at a position sees."""
        top, left = (self.start + position * self.jump for position in (row, column))
        return top, left, self.size or 0


def output_size(size: int, window: int, stride: int = 1, padding: str = "valid") -> int:
    """Returns how many windows fit along a side.

    Args:
        size: values along the side, 1 or more.
        window: values along the window's, 1 or more.
        stride: from one window to the next.
        padding: "valid" for none, "same" for as much as gives ceil(size / stride).

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016,
    relationship 5; for "same" TensorFlow's documentation of `tf.nn.convolution`.
    """
    if padding == "same":
        return -(-size // stride)
    return (size - window) // stride + 1


def parameters(layer: "keras.Layer") -> int | None:
    """Returns how many numbers a layer learns or keeps, by formula; None for an unknown type."""
    kind = type(layer).__name__
    if kind == "Conv2D":
        rows, columns = layer.kernel_size
        inputs = layer.input.shape[-1] // layer.groups
        return int((rows * columns * inputs + bool(layer.use_bias)) * layer.filters)
    if kind == "Dense":
        return int((layer.input.shape[-1] + bool(layer.use_bias)) * layer.units)
    if kind == "BatchNormalization":  # scale, centre, and the means and variances that it keeps
        return int((bool(layer.scale) + bool(layer.center) + 2) * layer.input.shape[-1])
    return None if layer.weights else 0


def formula(layer: "keras.Layer") -> str:
    """Returns the formula of `parameters` with its numbers, or nothing where it is 0 or unknown."""
    kind = type(layer).__name__
    if kind == "Conv2D":
        rows, columns = layer.kernel_size
        bias = " + 1" if layer.use_bias else ""
        return f"({rows}·{columns}·{layer.input.shape[-1] // layer.groups}{bias}) · {layer.filters}"
    if kind == "Dense":
        return f"({layer.input.shape[-1]:,}{' + 1' if layer.use_bias else ''}) · {layer.units:,}"
    if kind == "BatchNormalization":
        return f"{bool(layer.scale) + bool(layer.center) + 2} · {layer.input.shape[-1]}"
    return ""


def fields(model: "keras.Model") -> dict[str, Field]:
    """Returns the receptive field of the values of each layer, by the layer's name.

    Where layers come together the largest counts. What lies behind a layer of a type that is not
    known here is left out.
    """
    found: dict[str, Field] = {}
    for layer in model.layers:
        before = [found.get(name) for name in inputs(layer)]
        known = [field for field in before if field is not None]
        if len(known) < len(before):
            continue
        field = _behind(layer, _widest(known))
        if field is not None:
            found[layer.name] = field
    return found


def inputs(layer: "keras.Layer") -> list[str]:
    """Returns the names of the layers whose outputs a layer takes, but for the input layer."""
    input_layer = keras_backend.load().layers.InputLayer
    nodes = layer._inbound_nodes[:1]  # Keras has no public way from a layer to those before it
    before = [tensor._keras_history.operation for node in nodes for tensor in node.input_tensors]
    return [each.name for each in before if not isinstance(each, input_layer)]


def _widest(fields_before: list[Field]) -> Field:
    if any(field.size is None for field in fields_before):
        return Field(None)
    return max(fields_before, key=lambda field: field.size or 0, default=Field(1))


def _behind(layer: "keras.Layer", before: Field) -> Field | None:
    kind = type(layer).__name__
    if kind in _POINTWISE or kind.startswith("Random"):  # augmentation is idle outside training
        return before
    if kind in ("Flatten", "Dense") or kind.startswith("Global"):
        return before if kind == "Dense" and len(layer.input.shape) == 4 else Field(None)
    if kind in _POOLINGS:
        return before.through(*_windows(layer, layer.pool_size[0]))
    if kind in _CONVOLUTIONS:
        reach = (layer.kernel_size[0] - 1) * _first(layer.dilation_rate) + 1
        return before.through(*_windows(layer, reach))
    return None


def _windows(layer: "keras.Layer", window: int) -> tuple[int, int, int]:
    """Returns what `Field.through` takes; columns are as rows."""
    stride = layer.strides[0]
    if layer.padding != "same":
        return window, stride, 0
    size = layer.input.shape[1]
    missing = (output_size(size, window, stride, "same") - 1) * stride + window - size
    return window, stride, max(missing, 0) // 2


def _first(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])
