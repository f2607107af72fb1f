"""The layers that a recipe's net is made of, as a recipe file writes them down.

{ layer = "conv", filters = 32 }
{ layer = "residual", filters = 64, stride = 2 }
{ layer = "backbone", name = "MobileNetV3Small", weights = "imagenet" }
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Positive: TypeAlias = Annotated[int, Meta(ge=1)]

NO_WEIGHTS, IMAGENET = "none", "imagenet"
#: Backbones that exist in several widths.
SCALED = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large")
LEAST = 32  # rows and columns that a backbone takes, and by how much it divides them


class _Layer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="layer"):
    pass


class Backbone(_Layer, frozen=True, tag="backbone"):
    """The convolutions of a known net, from RGB pixels to a 32nd of the rows and columns.

    It is the first layer of a net. The scaling that its weights expect is a part of it.

    Attributes:
        name: of a net of keras.applications, or EfficientNetLite0.
        weights: "none" draws them from the seed; "imagenet" are those that Keras downloads; or the
            path of a file of this net's weights.
        alpha: width: the number of channels is multiplied with it.

    Source: Howard et al. 2017, "MobileNets"; Sandler et al. 2018, "MobileNetV2"; Howard et al.
    2019, "Searching for MobileNetV3"; Tan and Le 2019, "EfficientNet"; Tan and Le 2021,
    "EfficientNetV2"; EfficientNet-Lite: https://github.com/tensorflow/tpu (models/official).
    """

    name: Literal[
        "MobileNet",
        "MobileNetV2",
        "MobileNetV3Small",
        "MobileNetV3Large",
        "EfficientNetB0",
        "EfficientNetV2B0",
        "EfficientNetLite0",
    ]
    weights: Annotated[str, Meta(min_length=1)] = NO_WEIGHTS
    alpha: Annotated[float, Meta(gt=0, le=2)] = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError where there is no such net."""
        if self.alpha != 1.0 and self.name not in SCALED:
            raise ValueError(f"alpha: expected with {' or '.join(SCALED)} only, got {self.name}")

    @property
    def pretrained(self) -> bool:
        """Whether its weights are not drawn."""
        return self.weights != NO_WEIGHTS


class Standardize(_Layer, frozen=True, tag="standardize"):
    """Each picture less its own mean, divided by its own standard deviation.

    Over all its pixels and channels, so that a net does not see how bright a picture is, or how
    much contrast it has. It is the first layer of a net.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", as in
    tf.image.per_image_standardization; a flat picture becomes zeros.
    """


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


Layer: TypeAlias = (
    Backbone | Standardize | Conv | Residual | MaxPool | GlobalAverage | Flatten | Dropout | Dense
)
KINDS: tuple[type[Layer], ...] = (
    *(Conv, Residual, MaxPool, GlobalAverage),
    *(Flatten, Dropout, Dense, Standardize, Backbone),
)


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
            case Backbone():
                size = max(LEAST, (size - 1) * LEAST + 1)
    return size
