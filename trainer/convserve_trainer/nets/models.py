"""The nets, each uint8 pixels in and probabilities out; the scaling by 1/255 is a layer.

Two classes take one sigmoid unit by the loss binary_crossentropy, the probability of the second
class; several labels a picture take a sigmoid unit each; everything else takes a softmax.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.errors import UsageError
from convserve_trainer.nets import backbones, keras_backend, starts
from convserve_trainer.recipes import layers
from convserve_trainer.recipes.augmentation import Augmentation
from convserve_trainer.recipes.layers import Layer
from convserve_trainer.recipes.recipe import Recipe

if TYPE_CHECKING:
    import keras

LEAST_DEVIATION = 1 / 255  # what a picture is divided by at least: a level
NORM_MOMENTUM = 0.9  # Keras's 0.99 needs more steps than an epoch of few pictures has
SGD_MOMENTUM = 0.9


def check_size(recipe: Recipe) -> None:
    """Checks that the recipe's net can take pictures of the recipe's size.

    Raises:
        UsageError: they are too small.
    """
    smallest = layers.smallest(recipe.net)
    if recipe.height and recipe.width and min(recipe.height, recipe.width) < smallest:
        raise UsageError(
            f"--size: expected {smallest}x{smallest} or more for the net of recipe {recipe.name}, "
            f"got {recipe.height}x{recipe.width}"
        )


def check_pictures(recipe: Recipe, spec: InputSpec) -> None:
    """Checks that the recipe's net can take pictures such as the data have.

    Raises:
        UsageError: they are too small, or have another number of channels than a backbone takes.
    """
    if backbones.of(recipe) and spec.channels != 3:
        raise UsageError(f"pictures: expected 3 channels for a backbone, got {spec.channels}")
    smallest = layers.smallest(recipe.net)
    if min(spec.height, spec.width) < smallest:
        raise UsageError(
            f"pictures: expected {smallest} x {smallest} pixels or more for the net of recipe "
            f"{recipe.name}, got {spec.height} x {spec.width}: choose another recipe, or a file "
            "of your own with fewer or smaller layers"
        )


def build(
    recipe: Recipe,
    spec: InputSpec,
    classes: int,
    pictures: int,
    say: Callable[[str], None] = lambda _: None,
) -> "keras.Model":
    """Returns the recipe's net, compiled; weights that nothing else gives are drawn from its seed.

    Args:
        recipe: names the layers, the optimizer and the loss.
        spec: of one picture.
        classes: how many, 2 or more.
        pictures: in the training set, 1 or more; a schedule of the learning rate depends on it.
        say: takes lines for the user, on weights that are not drawn.

    Returns:
        uint8 [N, H, W, C] to float32 [N, K], rows sum to 1 unless pictures have several labels;
        for a sigmoid of two classes to float32 [N, 1].

    Raises:
        StartError: weights that the recipe names cannot be had, or fit no layer.
    """
    keras = keras_backend.load()
    keras.backend.clear_session()  # layer names start anew, so that they too are the same
    keras.utils.set_random_seed(recipe.seed)
    model = _net(recipe, spec, classes, training=True)
    body = starts.begin(model, recipe, say)
    if recipe.freeze_epochs:
        for layer in body:
            layer.trainable = False
    _compile(model, recipe, pictures, body)
    return model


def frozen(model: "keras.Model") -> list[Any]:
    """Returns the layers with weights that a training leaves as they are."""
    return [layer for layer in model.layers if layer.weights and not layer.trainable]


def thaw(model: "keras.Model", recipe: Recipe, pictures: int) -> None:
    """Lets all layers be trained from here on, with a new optimizer; see `build`."""
    body = frozen(model)
    for layer in body:
        layer.trainable = True
    _compile(model, recipe, pictures, body)


def for_inference(model: "keras.Model", recipe: Recipe, spec: InputSpec) -> "keras.Model":
    """Returns a net with the weights of a trained one, without what only training needs.

    Args:
        model: that `build` made.
        recipe: of it.
        spec: of one picture.
    """
    classes = max(model.output_shape[-1], 2)
    keras_backend.load().backend.clear_session()  # layer names start anew, see `build`
    net = _net(recipe, spec, classes, training=False)
    net.set_weights(model.get_weights())
    return net


def with_class_columns(model: "keras.Model") -> "keras.Model":
    """Returns the net with a probability for each class: a sigmoid p becomes [1 - p, p].

    Servers and clients so know one shape only. The arithmetic is a product and a sum with
    constants, because a concatenation would not stay on a GPU.
    """
    if model.output_shape[-1] > 1:
        return model
    keras = keras_backend.load()
    columns = model.outputs[0] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
    return keras.Model(model.inputs, columns, name=model.name)


def _net(recipe: Recipe, spec: InputSpec, classes: int, training: bool) -> "keras.Model":
    keras = keras_backend.load()
    pixels = keras.Input((spec.height, spec.width, spec.channels), dtype="uint8", name="pixels")
    chain: list[Any] = [keras.layers.Rescaling(1 / 255, dtype="float32")]
    if training and recipe.augmentation != Augmentation():
        from convserve_trainer.nets.augmentation import RandomChange

        chain.append(RandomChange(**msgspec.to_builtins(recipe.augmentation)))
    if training and recipe.mixing:
        from convserve_trainer.nets.mixing import Mixing

        chain.append(Mixing(mixup=recipe.augmentation.mixup, cutmix=recipe.augmentation.cutmix))
    several = recipe.output == "multi_label"
    sigmoid = several or recipe.loss == "binary_crossentropy"
    units = 1 if sigmoid and not several else classes
    activation = "sigmoid" if sigmoid else "softmax"
    # Blocks make their layers when the tensor is put through them, so that is within, too.
    with _policy("mixed_bfloat16" if training and recipe.mixed_precision else "float32"):
        for layer in recipe.net:
            if training or not isinstance(layer, layers.Dropout):
                chain += _made(layer, training)
        chain.append(keras.layers.Dense(units, activation=activation, dtype="float32"))
        if not any(isinstance(layer, layers.Residual | layers.Backbone) for layer in recipe.net):
            return keras.Sequential([pixels, *chain], name=recipe.name)
        return keras.Model(pixels, _through(chain, pixels), name=recipe.name)


@contextmanager
def _policy(name: str) -> Iterator[None]:
    """Lets layers that are made within compute by this policy of types."""
    config = keras_backend.load().config
    before = config.dtype_policy()
    config.set_dtype_policy(name)
    try:
        yield
    finally:
        config.set_dtype_policy(before)


def _made(layer: Layer, training: bool) -> list[Any]:
    """Returns the layers of Keras, or functions of tensors, that a layer of a recipe becomes."""
    kinds = keras_backend.load().layers
    match layer:
        case layers.Backbone():
            return [lambda values: backbones.through(layer, values)]
        case layers.Standardize():
            return [
                kinds.LayerNormalization(
                    axis=(1, 2, 3),
                    center=False,
                    scale=False,
                    epsilon=LEAST_DEVIATION**2,
                    name="standardized",
                    dtype="float32",
                )
            ]
        case layers.Conv(norm="none"):
            return [
                kinds.Conv2D(
                    layer.filters,
                    layer.kernel,
                    strides=layer.stride,
                    padding=layer.padding,
                    activation="relu",
                )
            ]
        case layers.Conv():
            shape = (layer.filters, layer.kernel, layer.stride, layer.padding)
            return [*_normalised(*shape, training=training), kinds.Activation("relu")]
        case layers.Residual():
            return [lambda values: _residual(layer, values, training)]
        case layers.MaxPool():
            return [kinds.MaxPooling2D(layer.size)]
        case layers.GlobalAverage():
            return [kinds.GlobalAveragePooling2D()]
        case layers.Flatten():
            return [kinds.Flatten()]
        case layers.Dropout():
            return [kinds.Dropout(layer.rate)]
        case layers.Dense():
            return [kinds.Dense(layer.units, activation="relu")]


def _normalised(
    filters: int, kernel: int, stride: int = 1, padding: str = "same", *, training: bool
) -> list[Any]:
    """Returns a convolution, whose bias is left to the normalisation after it, and that."""
    kinds = keras_backend.load().layers
    normalization = kinds.BatchNormalization
    if training:
        from convserve_trainer.nets.normalization import FusedBatchNormalization

        normalization = FusedBatchNormalization
    return [
        kinds.Conv2D(filters, kernel, strides=stride, padding=padding, use_bias=False),
        normalization(momentum=NORM_MOMENTUM),
    ]


def _residual(layer: layers.Residual, values: Any, training: bool) -> Any:
    kinds = keras_backend.load().layers
    shortcut, filters, stride = [], layer.filters, layer.stride
    if stride > 1:
        shortcut.append(kinds.AveragePooling2D(stride, padding="same"))
    if values.shape[-1] != filters:
        shortcut += _normalised(filters, 1, training=training)
    body = [
        *_normalised(filters, 3, stride, training=training),
        kinds.Activation("relu"),
        *_normalised(filters, 3, training=training),
    ]
    added = kinds.Add()([_through(body, values), _through(shortcut, values)])
    return kinds.Activation("relu")(added)


def _through(chain: list[Any], values: Any) -> Any:
    for layer in chain:
        values = layer(values)
    return values


def _loss(recipe: Recipe) -> Any:
    if not recipe.label_smoothing:
        return recipe.loss
    losses = keras_backend.load().losses
    kinds = {
        "binary_crossentropy": losses.BinaryCrossentropy,
        "categorical_crossentropy": losses.CategoricalCrossentropy,
    }
    return kinds[recipe.loss](label_smoothing=recipe.label_smoothing)


def _compile(model: "keras.Model", recipe: Recipe, pictures: int, body: Sequence[Any]) -> None:
    """Compiles a net for the stage of its training that follows.

    Args:
        model: changed in place.
        recipe: of it.
        pictures: in the training set.
        body: its layers with weights of other nets.
    """
    *before, epochs = recipe.stage_ends
    if frozen(model):
        rate = _learning_rate(recipe, pictures, recipe.stage_ends[0], 0 if before else None)
    else:
        rate = _learning_rate(recipe, pictures, epochs - sum(before))
    slow = {id(weights) for layer in body for weights in layer.trainable_weights}
    numbers = [
        number for number, weights in enumerate(model.trainable_weights) if id(weights) in slow
    ]
    optimizer = _optimizer(recipe, rate, numbers if recipe.body_rate < 1 else [])
    # By its name Keras would take the accuracy of the most probable label.
    several = recipe.output == "multi_label"
    metrics = keras_backend.load().metrics
    accuracy = metrics.BinaryAccuracy(name="accuracy") if several else "accuracy"
    model.compile(optimizer=optimizer, loss=_loss(recipe), metrics=[accuracy])


def _optimizer(recipe: Recipe, learning_rate: Any, body: Sequence[int] = ()) -> Any:
    """Returns the recipe's optimizer; these variables of the net have the body's rate."""
    optimizers = keras_backend.load().optimizers
    settings: dict[str, Any] = {"learning_rate": learning_rate}
    if recipe.averaging:
        settings |= {"use_ema": True, "ema_momentum": recipe.averaging}
    if recipe.weight_decay:
        settings["weight_decay"] = recipe.weight_decay
    if recipe.optimizer == "sgd":
        settings |= {"momentum": SGD_MOMENTUM, "nesterov": True}
    kinds = {
        "rmsprop": optimizers.RMSprop,
        "adam": optimizers.Adam,
        "adamw": optimizers.AdamW,
        "sgd": optimizers.SGD,
    }
    if body:
        from convserve_trainer.nets import body_rate

        kinds = body_rate.KINDS
        settings |= {"body": body, "body_rate": recipe.body_rate}
    if recipe.optimizer == "adamw":
        settings.setdefault("weight_decay", 0.0)  # Keras's default is another
    return kinds[recipe.optimizer](**settings)


def _learning_rate(
    recipe: Recipe, pictures: int, epochs: int, warmup_epochs: float | None = None
) -> Any:
    """Returns the learning rate, or how it follows from the step of so many epochs.

    Linear warm-up, of so many epochs or as long as the recipe's, then constant or half a cosine
    down to 0.
    """
    an_epoch = recipe.steps or math.ceil(pictures / recipe.batch_size)
    warmup_epochs = recipe.warmup_epochs if warmup_epochs is None else warmup_epochs
    warmup = round(warmup_epochs * an_epoch)
    schedules = keras_backend.load().optimizers.schedules
    if recipe.schedule == "cosine":
        return schedules.CosineDecay(
            0.0 if warmup else recipe.learning_rate,
            max(epochs * an_epoch - warmup, 1),
            warmup_target=recipe.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    if warmup:
        return schedules.PolynomialDecay(0.0, warmup, end_learning_rate=recipe.learning_rate)
    return recipe.learning_rate
