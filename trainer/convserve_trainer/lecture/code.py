"""The code of a net, and of its training, as one would write it with Keras."""

from typing import TYPE_CHECKING

from convserve_trainer.lecture import geometry
from convserve_trainer.recipes.augmentation import Augmentation
from convserve_trainer.recipes.recipe import Recipe

if TYPE_CHECKING:
    import keras

OPTIMIZERS = {"rmsprop": "RMSprop", "adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}

#: What is written of a layer: the arguments that come without their names, and those with.
_ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Rescaling": ((), ()),
    "Conv2D": (("filters", "kernel_size"), ("strides", "padding", "activation", "use_bias")),
    "MaxPooling2D": (("pool_size",), ("padding",)),
    "AveragePooling2D": (("pool_size",), ("padding",)),
    "GlobalAveragePooling2D": ((), ()),
    "BatchNormalization": ((), ()),
    "Activation": (("activation",), ()),
    "Flatten": ((), ()),
    "Dropout": (("rate",), ()),
    "Dense": (("units",), ("activation", "use_bias")),
}
_LEFT_OUT = {"strides": (1, 1), "padding": "valid", "activation": "linear", "use_bias": True}


def net_code(model: "keras.Model", features: bool | None = None) -> str | None:
    """Returns the code of a net; None for one that is not a chain of layers of the usual types.

    Args:
        model: uint8 [N, H, W, C] in.
        features: True for the layers up to the last one with rows and columns, False for those
            behind it, None for all.
    """
    every = _layers(model)
    before = [[], *([layer.name] for layer in every)]
    if [geometry.inputs(layer) for layer in every] != before[: len(every)]:
        return None
    if any(type(layer).__name__ not in _ARGUMENTS for layer in every):
        return None
    chosen = [
        layer for layer in every if features is None or (len(layer.output.shape) == 4) == features
    ]
    shape = tuple(model.inputs[0].shape[1:])
    lines = [] if features is False else [f"keras.Input({shape}),"]
    lines += [f"layers.{_call(layer)}," for layer in chosen]
    return "\n".join(["net = keras.Sequential([", *(f"    {line}" for line in lines), "])"])


def training_code(recipe: Recipe, generators: bool = False) -> str:
    """Returns the code that compiles a net and fits it; see `left_out`.

    Args:
        recipe: of the training.
        generators: whether the pictures come from generators, not from arrays.
    """
    optimizer = f"keras.optimizers.{OPTIMIZERS[recipe.optimizer]}({recipe.learning_rate:g})"
    steps = f", steps_per_epoch={recipe.steps}" if recipe.steps else ""
    if generators:
        data = "train, validation_data=validation"
        if recipe.validation_steps:
            steps += f", validation_steps={recipe.validation_steps}"
    else:
        data = f"train_images, train_labels, batch_size={recipe.batch_size}"
    return (
        "net.compile(\n"
        f"    optimizer={optimizer},\n"
        f'    loss="{recipe.loss}",\n'
        '    metrics=["accuracy"],\n'
        ")\n"
        f"net.fit({data}, epochs={recipe.epochs}{steps})"
    )


def left_out(recipe: Recipe) -> str:
    """Returns what of a recipe the code of `training_code` leaves out, after a comma."""
    there = {
        "augmentation": recipe.augmentation != Augmentation(),
        "schedule": recipe.schedule != "constant" or recipe.warmup_epochs,
        "weight decay": recipe.weight_decay,
        "label smoothing": recipe.label_smoothing,
        "class weights": recipe.class_weights != "none",
    }
    names = ", ".join(name for name, used in there.items() if used)
    return f", but for its {names}" if names else ""


def _layers(model: "keras.Model") -> "list[keras.Layer]":
    return [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]


def _call(layer: "keras.Layer") -> str:
    kind, values = type(layer).__name__, layer.get_config()
    if kind == "Rescaling":
        return f"Rescaling(1 / {1 / values['scale']:g})"
    plain, named = _ARGUMENTS[kind]
    words = [_shown(values[name]) for name in plain]
    words += [
        f"{name}={_shown(values[name])}"
        for name in named
        if name in values and values[name] != _LEFT_OUT[name]
    ]
    return f"{kind}({', '.join(words)})"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        value = tuple(value)
    return f'"{value}"' if isinstance(value, str) else str(value)
