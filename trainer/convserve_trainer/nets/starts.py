"""A new net begins with the weights of another one, as far as its layers fit.

The n-th convolution takes the weights of the other net's n-th convolution, if they have the same
shape, and so do other kinds of layers. The output is always new.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convserve_trainer.errors import StartError
from convserve_trainer.nets import backbones, weights_file
from convserve_trainer.nets.origin import Origin
from convserve_trainer.nets.weights_file import Arrays, Kept
from convserve_trainer.recipes.layers import IMAGENET
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.wording import counted

if TYPE_CHECKING:
    import keras

SHOWN = 8  # layers that do not fit, by name


def check(recipe: Recipe) -> tuple[Origin, ...]:
    """Returns what the weights of a recipe's net are before its training; nothing if drawn.

    Raises:
        StartError: they cannot be downloaded or read, or are those of another net.
    """
    found = []
    layer = backbones.of(recipe)
    if layer is not None and layer.pretrained:
        of_file = None if layer.weights == IMAGENET else weights_file.digest(Path(layer.weights))
        arrays = backbones.weights(layer)
        source = f"{layer.name}, {IMAGENET}" if of_file is None else layer.weights
        found.append(Origin(source, of_file or _digest(arrays.values())))
    if recipe.start_from is not None:
        path = weights_file.find(recipe.start_from)
        weights_file.read(path)
        found.append(Origin(str(path), weights_file.digest(path)))
    return tuple(found)


def begin(model: "keras.Model", recipe: Recipe, say: Callable[[str], None]) -> list[Any]:
    """Gives a net the weights that its recipe says; returns the layers that have got some.

    Args:
        model: changed in place.
        recipe: of it.
        say: takes lines for the user.

    Raises:
        StartError: the weights cannot be had, or fit no layer.
    """
    layer = backbones.of(recipe)
    given = {} if layer is None else backbones.weights(layer)
    for name, arrays in given.items():
        model.get_layer(name).set_weights(arrays)
    body = {name: model.get_layer(name) for name in given}
    if layer is not None and given:
        say(f"begins with      {layer.name}, {layer.weights}: {counted(len(given), 'layer')}")
    if recipe.start_from is not None:
        path = weights_file.find(recipe.start_from)
        taken, left = take(model, weights_file.read(path))
        if not taken:
            raise StartError(
                f"start_from: expected a net with layers like those of recipe {recipe.name}, got "
                f"{path}, of which none fits: {_listed(left)}"
            )
        say(f"begins with     {path}: {_counts(taken, model)}")
        say(f"not taken       {_listed(left)}")
        body |= {layer.name: layer for layer in taken}
    return list(body.values())


def take(model: "keras.Model", kept: Kept) -> tuple[list[Any], list[str]]:
    """Gives the layers of a net weights of another one.

    Args:
        model: changed in place; its last layer is the output.
        kept: weights of the other one.

    Returns: the layers that fit, and why others do not.
    """
    taken, left, seen = [], [], Counter[str]()
    layers = [layer for layer in model.layers if layer.weights]
    for layer in layers[:-1]:
        kind = weights_file.kind_of(layer)
        number, seen[kind] = seen[kind], seen[kind] + 1
        theirs = kept.get(kind, [])[number : number + 1]
        if not theirs:
            left.append(f"{layer.name}: there are {len(kept.get(kind, []))} of its kind")
        elif _shapes(theirs[0]) != _shapes(layer.get_weights()):
            expected, got = _shapes(layer.get_weights())[0], _shapes(theirs[0])[0]
            left.append(f"{layer.name}: expected {expected}, got {got}")
        else:
            layer.set_weights(theirs[0])
            taken.append(layer)
    return taken, [*left, f"{layers[-1].name}: the output is new"]


def _digest(layers: Iterable[Arrays]) -> str:
    digest = hashlib.sha256()
    for arrays in layers:
        for array in arrays:
            digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return digest.hexdigest()


def _shapes(arrays: Arrays) -> list[list[int]]:
    return [list(array.shape) for array in arrays]


def _counts(taken: Sequence[Any], model: "keras.Model") -> str:
    layers = sum(1 for layer in model.layers if layer.weights)
    of_taken, of_all = (
        sum(math.prod(weights.shape) for layer in some for weights in layer.weights)
        for some in (taken, model.layers)
    )
    return f"{len(taken)} of {counted(layers, 'layer')}, {of_taken:,} of {of_all:,} weights"


def _listed(left: Sequence[str]) -> str:
    more = len(left) - SHOWN
    return "; ".join([*left[:SHOWN], *([f"{more} more"] if more > 0 else [])])
