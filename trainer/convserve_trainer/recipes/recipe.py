"""Recipes: everything that decides what is trained, as data.

A recipe is what the manifest keeps as `training.recipe_json`; together with the seed, the data and
the versions it is enough to train the net again. `recipes` reads them from files.
"""

import copy
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from convserve_host.arguments import did_you_mean
from convserve_trainer.errors import UsageError
from convserve_trainer.recipes import layers
from convserve_trainer.recipes.augmentation import Amount, Augmentation, Share
from convserve_trainer.recipes.card import Card
from convserve_trainer.recipes.distillation import Distillation
from convserve_trainer.recipes.layers import Layer, Positive
from convserve_trainer.wording import counted

Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # NumPy's generator takes no larger one

#: Fields that came when there were bundles and checkpoints already.
LATER = (
    *("averaging", "body_rate", "card", "cutmix", "distillation", "elastic", "freeze_epochs"),
    *("levels", "mixup", "output", "start_from"),
)


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one training.

    Attributes:
        name: what `--recipe` says.
        task: what the net tells apart; decides the data.
        about: a sentence for who chooses among recipes.
        net: its layers, between the scaling by 1/255 and the output, which follows from the loss.
        augmentation: of the pictures that are trained on.
        start_from: path of a published bundle, or of a file .keras or .weights.h5. Layers begin
            with its weights where kind and shape fit; the output's are always drawn.
        freeze_epochs: so many first epochs train only layers whose weights were drawn. The others,
            the body, stay as they are, and batch normalisations in it use the statistics that they
            have. In the epochs after these the schedule begins anew.
        body_rate: factor of the learning rate for the body, when that is trained.
        optimizer: Keras's name of the optimizer; sgd has Nesterov's momentum of 0.9.
        learning_rate: step of the optimizer, at its highest.
        schedule: "cosine" lets it fall to 0 in the course of all epochs; Loshchilov and Hutter
            2017, "SGDR".
        warmup_epochs: before that it rises from 0; may be a part of one.
        weight_decay: of kernels, by step and learning rate; adamw and sgd only; Loshchilov and
            Hutter 2019.
        output: "softmax", one class a picture; or "multi_label", any number of labels a picture,
            each with a sigmoid of its own. Data with several labels a picture make it so.
        loss: Keras's name of the loss; more than two classes take the categorical one, several
            labels a picture the binary one, its mean over the labels.
        label_smoothing: share of each picture's label that is spread over all classes;
            Szegedy et al. 2016.
        class_weights: "balanced" counts a picture of a rare class as much more as it is rarer.
        epochs: of training, at most.
        batch_size: images a step.
        steps: an epoch; None for one pass over the training set.
        validation_steps: batches of held-out images that are scored after each epoch, at most;
            the weights of the epoch with the lowest loss on them are published. None for no
            validation of this kind.
        validation_share: share of the training set that is not trained on but used instead of
            those held-out images. 0 for no validation of this kind; without any, the last epoch's
            weights are published.
        calibrate: 5,000 pictures of the training set, or a tenth of fewer than 50,000, are not
            trained on but decide a temperature, which makes the published probabilities as sure as
            they are right; Guo et al. 2017.
        patience: epochs without a lower validation loss that end the training; None for never.
        height: rows of one image; None where the data decide.
        width: columns likewise.
        channels: of photographs, 3 for RGB or 1 for grey (luma); for digits the data decide.
        mixed_precision: compute in bfloat16, keep weights and sums in float32.
        seed: of weights, shuffling, dropout and augmentation.
        limit: train on the first so many images only; None for all.
        min_accuracy: least share of held-out images, 0 to 1, for the net to be published.
        card: what the model card says beyond what is measured.
        distillation: of other nets into this one.
        averaging: 0.999 publishes the average of the weights over about the last 1,000 steps, which
            is what keeps so much of itself in each step; 0 for the weights of the last step.
    """

    name: str
    task: Literal["digits", "photos"]
    about: str = ""
    net: Annotated[tuple[Layer, ...], Meta(min_length=1)]
    augmentation: Augmentation = Augmentation()
    start_from: str | None = None
    freeze_epochs: Annotated[int, Meta(ge=0)] = 0
    body_rate: Annotated[float, Meta(gt=0, le=1)] = 1.0
    optimizer: Literal["rmsprop", "adam", "adamw", "sgd"] = "rmsprop"
    learning_rate: Annotated[float, Meta(gt=0, le=100)] = 1e-3  # Keras's default
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: Amount = 0.0
    weight_decay: Amount = 0.0
    output: Literal["softmax", "multi_label"] = "softmax"
    loss: Literal["categorical_crossentropy", "binary_crossentropy"] = "categorical_crossentropy"
    label_smoothing: Share = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    epochs: Positive
    batch_size: Positive
    steps: Positive | None = None
    validation_steps: Positive | None = None
    validation_share: Share = 0.0
    calibrate: bool = False
    patience: Positive | None = None
    height: Positive | None = None
    width: Positive | None = None
    channels: Literal[1, 3] = 3
    mixed_precision: bool = False
    seed: Seed = 1
    limit: Positive | None = None
    min_accuracy: Annotated[float, Meta(ge=0, le=1)] = 0.0
    card: Card = Card()
    distillation: Distillation = Distillation()
    averaging: Share = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError where settings do not go together."""
        if self.output == "multi_label" and self.loss != "binary_crossentropy":
            raise ValueError(
                f"loss: expected binary_crossentropy with output multi_label, got {self.loss}"
            )
        if self.output == "multi_label" and self.class_weights != "none":
            raise ValueError(
                "class_weights: expected none with output multi_label, whose thresholds suit rare "
                f"labels, got {self.class_weights}"
            )
        if self.weight_decay and self.optimizer not in ("adamw", "sgd"):
            raise ValueError(f"weight_decay: expected with adamw or sgd only, got {self.optimizer}")
        last = self.epochs - [0, *self.stage_ends][-2]
        if self.warmup_epochs and not self.warmup_epochs < last:
            raise ValueError(
                f"warmup_epochs: expected fewer than the {counted(last, 'epoch')}, got "
                f"{self.warmup_epochs:g}"
            )
        if not self.begins_with_weights and (self.freeze_epochs or self.body_rate != 1):
            raise ValueError(
                "freeze_epochs and body_rate: expected with start_from, or a backbone with weights"
            )
        if self.validation_steps and self.validation_share:
            raise ValueError("give validation_steps or validation_share, not both")
        if self.averaging and self.validated:
            raise ValueError(
                "averaging: expected without validation_share and validation_steps, which choose "
                "the weights"
            )
        if self.patience and not self.validated:
            raise ValueError("patience needs validation_share or validation_steps")
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        if self.sized_by_data and (self.height is not None or self.channels == 1):
            raise ValueError("height, width and channels: expected for photos only, got digits")
        if not self.sized_by_data and self.height is None:
            raise ValueError("photos need height and width")
        self.card.check()
        self.distillation.check()
        for layer in self.net[1:]:
            if isinstance(layer, layers.Backbone | layers.Standardize):
                raise ValueError(f"{_tag(layer)}: expected as the first layer of the net only")
        if isinstance(self.net[0], layers.Backbone) and self.channels == 1:
            raise ValueError("channels: expected 3 with a backbone, got 1")
        # Of what `smallest` cannot know: a dense layer takes rows, all others take pictures.
        flat = False
        for layer in self.net:
            if flat and not isinstance(layer, layers.Dense | layers.Dropout):
                raise ValueError(f"{_tag(layer)} comes after flatten or global_average")
            if not flat and isinstance(layer, layers.Dense):
                raise ValueError("dense comes before flatten or global_average")
            flat = flat or isinstance(layer, layers.Flatten | layers.GlobalAverage)
        if not flat:
            raise ValueError("the net has neither flatten nor global_average")

    @property
    def sized_by_data(self) -> bool:
        """Whether pictures have the size that the data have, and not one that the recipe names."""
        return self.task == "digits"

    @property
    def mixing(self) -> bool:
        """Whether the loss needs to know what became of the pictures of a step."""
        changes = self.augmentation
        return bool(changes.mixup or changes.cutmix or self.distillation.teachers)

    @property
    def validated(self) -> bool:
        """Whether a validation after each epoch chooses the weights."""
        return self.validation_steps is not None or self.validation_share > 0

    @property
    def begins_with_weights(self) -> bool:
        """Whether layers begin with weights that are not drawn."""
        first = self.net[0]
        backbone = isinstance(first, layers.Backbone) and first.pretrained
        return backbone or self.start_from is not None

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """After how many epochs the stages of the training end: a frozen body's, then all layers'.

        There is one stage without `freeze_epochs`, and where the body is frozen to the end.
        """
        two = 0 < self.freeze_epochs < self.epochs
        return (self.freeze_epochs, self.epochs) if two else (self.epochs,)

    def override(
        self,
        changes: Mapping[str, Any] = MappingProxyType({}),
        *,
        min_accuracy: float | None = None,
        where: str = "--",
        **given: Any,
    ) -> "Recipe":
        """Returns the recipe with other settings.

        The accuracy floor is that of the recipe as written: whatever else changes lifts it (0.0)
        unless `min_accuracy`, or a change of that name, sets one. Another seed or card does not.

        Args:
            changes: by name; "augmentation.shift" and "net.0.filters" reach inside.
            min_accuracy: the floor.
            where: text before the name of a setting in a message; "--" for options.
            **given: changes, too; None is none.

        Raises:
            UsageError: there is no such setting, or it is out of its range.
        """
        before = self.every_value()
        values = copy.deepcopy(before)
        for name, value in [*changes.items(), *given.items()]:
            if value is not None:
                _set(values, name, value, where)
        floor = changes.get("min_accuracy") if min_accuracy is None else min_accuracy
        if floor is None:
            same = {**values, "seed": self.seed, "card": {}} == {**before, "card": {}}
            floor = self.min_accuracy if same else 0.0
        return make_recipe({**values, "min_accuracy": floor}, where)

    def for_classes(self, count: int, several: bool = False) -> "Recipe":
        """Returns the recipe for so many classes: more than two take a softmax and its loss.

        Args:
            count: of classes, or labels.
            several: whether a picture has any number of them: a sigmoid each, and its loss. The
                accuracy floor of a recipe that was not written for that is lifted.

        Raises:
            UsageError: the recipe is for several labels and the data are not, or it has class
                weights and the data several labels.
        """
        if several and self.output == "softmax":
            return self.override(
                output="multi_label",
                loss="binary_crossentropy",
                min_accuracy=0.0,
                where="",
            )
        if not several and self.output == "multi_label":
            raise UsageError(
                "output: expected softmax for data with one label a picture, got multi_label"
            )
        if several:
            return self
        if count > 2 and self.loss == "binary_crossentropy":
            return msgspec.structs.replace(self, loss="categorical_crossentropy")
        return self

    def every_value(self) -> dict[str, Any]:
        """Returns all settings by name, those too that `values` leaves out."""
        values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return values

    def values(self) -> dict[str, Any]:
        """Returns the settings by name, as JSON would give them back; see `to_json`."""
        values: dict[str, Any] = msgspec.json.decode(self.to_json())
        return values

    def to_json(self) -> str:
        """Returns the settings as a JSON object, keys in the order of the fields.

        Settings that came later are left out where they change nothing: programs of before know
        the rest, and a training of before is gone on with.
        """
        values = msgspec.to_builtins(self)
        for struct, given in ((self, values), (self.augmentation, values["augmentation"])):
            for field in msgspec.structs.fields(struct):
                if field.name in LATER and getattr(struct, field.name) == field.default:
                    del given[field.name]
        return msgspec.json.encode(values).decode()


def make_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Returns the recipe of these settings.

    Args:
        values: by name.
        where: text before the name of a setting in a message; "--" for options.

    Raises:
        UsageError: one is unknown, missing, of another type or out of its range.
    """
    try:
        return msgspec.convert(values, Recipe, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(_explained(str(error), values, where)) from error


def _explained(message: str, values: dict[str, Any], where: str) -> str:
    """Returns what msgspec says, with the setting's name first, its value, and what was meant."""
    what, _, path = message.partition(" - at `$")
    steps = re.findall(r"\w+", path)
    name = _named(steps, where)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        known = _fields(_at(values, steps), steps[-1] if steps else "")
        unknown_name = _named([*steps, unknown[1]], where)
        hint = did_you_mean(unknown[1], known) or f", there are: {', '.join(known)}"
        return f"{unknown_name} is not a valid setting{hint}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{_named([*steps, missing[1]], where)} is missing"
    if not path:
        return f"{'' if where == '--' else where}{what}"
    value = _at(values, steps)
    if what.startswith("Invalid"):
        known = _choices(steps)
        *others, last = known
        choices = f"{', '.join(others)} or {last}"
        return f"{name}: expected {choices}, got {value!r}{did_you_mean(str(value), known)}"
    return f"{name}: expected {_expected(what)}, got {value!r}"


def _expected(what: str) -> str:
    """Returns what msgspec expected: "Expected `int` >= 1" is "1 or more"."""
    if bound := re.fullmatch(r"Expected `\w+`(?: of length)? (>=|>|<=|<) (\S+?)(?:\.0)?", what):
        more = {">=": "{} or more", ">": "more than {}", "<=": "{} or less", "<": "less than {}"}
        return more[bound[1]].format(bound[2])
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    kind = re.match(r"Expected `(\w+)", what)
    return kinds.get(kind[1], kind[1]) if kind else what


def _named(steps: list[str], where: str) -> str:
    name = ".".join(steps)
    return f"--{name.replace('_', '-')}" if where == "--" else f"{where}{name}"


def _fields(at: Any, within: str) -> list[str]:
    """Returns the names of the settings of a part of a recipe; `within` is the part's name."""
    if "layer" in at:
        kinds = [kind for kind in layers.KINDS if kind.__struct_config__.tag == at["layer"]]
        return ["layer", *kinds[0].__struct_fields__]
    kind = Recipe if "task" in at or "net" in at else _TABLES.get(within, Augmentation)
    return list(kind.__struct_fields__)


_TABLES = {"card": Card, "distillation": Distillation}


def _choices(steps: list[str]) -> list[str]:
    """Returns what a setting may be that takes one of several words."""
    if steps[-1] == "layer":
        return [_tag(kind) for kind in layers.KINDS]
    kinds = layers.KINDS if steps[0] == "net" else (Recipe, Augmentation)
    kind = next(kind for kind in kinds if steps[-1] in kind.__struct_fields__)
    [field] = [field for field in msgspec.structs.fields(kind) if field.name == steps[-1]]
    return [str(choice) for choice in field.type.__args__]


def _tag(layer: Any) -> str:
    return str(layer.__struct_config__.tag)


def _at(values: Any, steps: list[str]) -> Any:
    for step in steps:
        values = values[int(step)] if step.isdecimal() else values.get(step)
    return values


def _set(values: dict[str, Any], name: str, value: Any, where: str) -> None:
    *steps, last = name.split(".")
    at: Any = values
    try:
        for step in steps:
            at = at[int(step)] if step.isdecimal() else at[step]
        if isinstance(at, list):
            at[int(last)] = value
        else:
            at[last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        before = "" if where == "--" else where
        raise UsageError(f"{before}the recipe has no {name}") from error
