"""Backbones: the convolutions of known nets as the first layer of a recipe's net.

The layers of a backbone are layers of the recipe's net, not a net within it: so they are exported,
folded, frozen and shown as any others. They keep their names, by which weights find them.

Source: https://keras.io/api/applications/.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from convserve_trainer.errors import StartError
from convserve_trainer.nets import keras_backend
from convserve_trainer.nets.efficientnet_lite import efficientnet_lite0
from convserve_trainer.nets.weights_file import Arrays
from convserve_trainer.recipes.layers import IMAGENET, NO_WEIGHTS, SCALED, Backbone
from convserve_trainer.recipes.recipe import Recipe

# As Simonyan and Zisserman 2015 and those after them scaled the pictures of ImageNet.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORM_MOMENTUM = 0.9  # theirs, up to 0.999, needs more steps than an epoch of few pictures has
SIDE = 224  # of pictures where only the weights are wanted, which do not depend on it


class Kind(NamedTuple):
    """How a backbone is made.

    Attributes:
        scale: factors of pixels of 0 to 1 that its first layer expects, for each channel.
        offset: that is added then.
        options: of the function of keras.applications.
        left_out: names of layers whose weights are not taken, because `scale` and `offset` do it.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    options: dict[str, Any] = {}
    left_out: tuple[str, ...] = ()


_SIGNED = ((2.0,) * 3, (-1.0,) * 3)
_STANDARD = (
    tuple(1 / deviation for deviation in DEVIATION),
    tuple(-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)),
)
_KINDS: dict[str, Kind] = {
    "MobileNet": Kind(*_SIGNED),
    "MobileNetV2": Kind(*_SIGNED),
    "MobileNetV3Small": Kind(*_SIGNED, {"include_preprocessing": False}),
    "MobileNetV3Large": Kind(*_SIGNED, {"include_preprocessing": False}),
    # Its function divides by 255 in any case, and then normalises; with other weights than those
    # that it downloads it forgets a factor of that.
    "EfficientNetB0": Kind(
        tuple(255 * factor for factor in _STANDARD[0]),
        tuple(255 * offset for offset in _STANDARD[1]),
        left_out=("normalization",),
    ),
    "EfficientNetV2B0": Kind(*_STANDARD, {"include_preprocessing": False}),
    # (x - 127) / 128
    "EfficientNetLite0": Kind((255 / 128,) * 3, (-127 / 128,) * 3),
}


NAMES = tuple(_KINDS)


def kind(name: str) -> Kind:
    """Returns how the backbone of a name is made."""
    return _KINDS[name]


def through(layer: Backbone, values: Any) -> Any:
    """Returns the last features of a backbone, float32 [N, ceil(H/32), ceil(W/32), channels].

    Args:
        layer: of a recipe.
        values: RGB, 0 to 1, float32 [N, H, W, 3]; a tensor of a functional net.
    """
    scaled = kind(layer.name)
    rescaling = keras_backend.load().layers.Rescaling
    net = _net(layer, rescaling(scaled.scale, scaled.offset, dtype="float32")(values))
    for each in net.layers:
        if hasattr(each, "momentum"):
            each.momentum = NORM_MOMENTUM
    return net.outputs[0]


def weights(layer: Backbone) -> dict[str, Arrays]:
    """Returns the weights that a backbone begins with, by name of layer; none if they are drawn.

    Raises:
        StartError: they cannot be downloaded or read, or are those of another net.
    """
    if not layer.pretrained:
        return {}
    keras = keras_backend.load()
    try:
        if layer.weights == IMAGENET:
            net = _downloaded(layer)
        else:
            net = _net(layer, keras.Input((SIDE, SIDE, 3)))
            net.load_weights(Path(layer.weights))
    except StartError:
        raise
    except Exception as error:  # noqa: BLE001 - Keras raises whatever its file formats do
        raise StartError(_refused(layer, error)) from error
    left_out = kind(layer.name).left_out
    return {
        each.name: each.get_weights()
        for each in net.layers
        if each.weights and each.name not in left_out
    }


def of(recipe: Recipe) -> Backbone | None:
    """Returns the backbone of a recipe's net; None if it has none."""
    first = recipe.net[0]
    return first if isinstance(first, Backbone) else None


def _downloaded(layer: Backbone) -> Any:
    if layer.name == "EfficientNetLite0":
        raise StartError(
            'net.0.weights: expected "none" or a file for EfficientNetLite0, which Keras does not '
            'have; got "imagenet"'
        )
    return _application(layer)(
        include_top=False, input_shape=(SIDE, SIDE, 3), weights=IMAGENET, **_options(layer)
    )


def _net(layer: Backbone, values: Any) -> Any:
    """Returns a net from what `values` depend on to the last features, its weights drawn."""
    keras = keras_backend.load()
    if layer.name == "EfficientNetLite0":
        inputs = keras.utils.get_source_inputs(values)
        return keras.Model(inputs, efficientnet_lite0(values))
    return _application(layer)(
        include_top=False, input_tensor=values, weights=None, **_options(layer)
    )


def _application(layer: Backbone) -> Callable[..., Any]:
    application: Callable[..., Any] = getattr(keras_backend.load().applications, layer.name)
    return application


def _options(layer: Backbone) -> dict[str, Any]:
    scaled = {"alpha": layer.alpha} if layer.name in SCALED else {}
    return kind(layer.name).options | scaled


def _refused(layer: Backbone, error: Exception) -> str:
    """Returns what to say of weights that Keras does not give."""
    why = " ".join(str(error).split())
    if layer.weights == IMAGENET:
        return (
            f'net.0.weights: "{IMAGENET}" of {layer.name} cannot be had ({why}); it is downloaded '
            f'once, with a network; a file of weights and "{NO_WEIGHTS}" need none'
        )
    shown = msgspec.json.encode(layer.weights).decode()
    return f"net.0.weights: {shown} does not hold the weights of {layer.name} ({why})"
