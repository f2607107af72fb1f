"""The layers that a recipe's net is made of, as a recipe file writes them down.

{ layer = "conv", filters = 32 }
{ layer = "residual", filters = 64, stride = 2 }
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Positive: TypeAlias = Annotated[int, Meta(ge=1)]


class _Layer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="layer"):
    pass


class Conv(_Layer, frozen=True, tag="conv"):
    """A convolution, then a normalisation if there is one, then a relu.

    Attributes:
        filters: channels that come out.
        kernel: rows and columns of each filter.
        stride: pixels from one position of the filter to the next.
        padding: "valid" has no border; "same" keeps the size, but for the stride.
        norm: "batch" is folded into the convolution when the net is exported.
    """

    filters: Positive
    kernel: Positive = 3
    stride: Positive = 1
    padding: Literal["valid", "same"] = "valid"
    norm: Literal["none", "batch"] = "none"


class Residual(_Layer, frozen=True, tag="residual"):
    """Two convolutions of 3 x 3, normalised by batch, whose result is added to what goes in.

    Where the sizes differ, what goes in is averaged and goes through a convolution of 1 x 1.

    Attributes:
        filters: channels that come out.
        stride: of the first convolution.

    Source: He et al. 2016, "Deep Residual Learning"; the shortcut of He et al. 2019, "Bag of
    Tricks" (ResNet-D).
    """

    filters: Positive
    stride: Positive = 1


class MaxPool(_Layer, frozen=True, tag="max_pool"):
    """The largest of each field of `size` x `size` pixels; fields do not overlap."""

    size: Annotated[int, Meta(ge=2)] = 2


class GlobalAverage(_Layer, frozen=True, tag="global_average"):
    """The mean of each channel."""


class Flatten(_Layer, frozen=True, tag="flatten"):
    """All values in one row."""


class Dropout(_Layer, frozen=True, tag="dropout"):
    """In training, a share of the values is zero; Srivastava et al. 2014."""

    rate: Annotated[float, Meta(ge=0, lt=1)]


class Dense(_Layer, frozen=True, tag="dense"):
    """Sums of everything, each with weights of its own, then a relu.

    Attributes:
        units: that come out.
    """

    units: Positive


Layer: TypeAlias = Conv | Residual | MaxPool | GlobalAverage | Flatten | Dropout | Dense
KINDS: tuple[type[Layer], ...] = (Conv, Residual, MaxPool, GlobalAverage, Flatten, Dropout, Dense)


def smallest(layers: tuple[Layer, ...]) -> int:
    """Returns the least rows or columns of a picture of which something is left in the end."""
    size = 1
    for layer in reversed(layers):
        match layer:
            case Conv(kernel=kernel, stride=stride, padding="valid"):
                size = (size - 1) * stride + kernel
            case Conv(stride=stride) | Residual(stride=stride):
                size = (size - 1) * stride + 1
            case MaxPool(size=field):
                size *= field
    return size
