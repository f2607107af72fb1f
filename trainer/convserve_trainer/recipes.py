"""Recipes: everything that decides what is trained, as data.

A recipe is what the manifest keeps as `training.recipe_json`; together with the seed, the data and
the versions it is enough to train the net again.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from convserve_trainer.errors import UsageError

MAX_SEED = 2**32 - 1  # NumPy's global generator takes no larger one


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        name: what `--recipe` says.
        task: what the net tells apart; decides the data.
        net: name in `models.NETS`.
        optimizer: Keras's name of the optimizer.
        learning_rate: step of the optimizer.
        loss: Keras's name of the loss.
        epochs: of training, 1 or more.
        batch_size: images a step, 1 or more.
        steps: an epoch, 1 or more; None for one pass over the training set.
        validation_steps: batches of held-out images that are scored after each epoch, at most;
            the weights of the epoch with the lowest loss on them are published. None for no
            validation: the last epoch's are.
        height: rows of one image, 1 or more; None where the data decide.
        width: columns likewise.
        seed: of weights and shuffling, 0 to `MAX_SEED`.
        limit: train on the first so many images only; None for all.
        min_accuracy: least share of held-out images, 0 to 1, for the net to be published.
    """

    name: str
    task: str
    net: str
    optimizer: str
    learning_rate: float
    loss: str
    epochs: int
    batch_size: int
    steps: int | None
    validation_steps: int | None
    height: int | None
    width: int | None
    seed: int
    limit: int | None
    min_accuracy: float

    def __post_init__(self) -> None:
        """Raises UsageError where a setting is out of its range."""
        for name in ("epochs", "batch_size", "steps", "validation_steps", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; it takes 1 or more")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"--seed is {self.seed}; it takes 0 to {MAX_SEED}")
        if not 0 <= self.min_accuracy <= 1:
            raise UsageError(f"--min-accuracy is {self.min_accuracy}; it takes 0 to 1")

    def override(
        self,
        *,
        seed: int | None = None,
        min_accuracy: float | None = None,
        **trained: int | None,
    ) -> "Recipe":
        """Returns the recipe with the settings that are not None.

        The accuracy floor is that of the recipe as written: other epochs, steps, batches, sizes or
        data lift it (0.0) unless `min_accuracy` sets one. Another seed does not.

        Args:
            seed: of weights and shuffling.
            min_accuracy: the floor.
            **trained: any other settings, by name.

        Raises:
            UsageError: a setting is out of its range.
        """
        given: dict[str, Any] = {k: value for k, value in trained.items() if value is not None}
        changed = replace(self, **given)
        if min_accuracy is None:
            min_accuracy = self.min_accuracy if changed == self else 0.0
        seed = self.seed if seed is None else seed
        return replace(changed, seed=seed, min_accuracy=min_accuracy)

    def for_classes(self, count: int) -> "Recipe":
        """Returns the recipe for so many classes: more than two take a softmax and its loss."""
        if count > 2 and self.loss == "binary_crossentropy":
            return replace(self, loss="categorical_crossentropy")
        return self

    def to_json(self) -> str:
        """Returns the settings as a JSON object, keys in the order of the fields."""
        return json.dumps(asdict(self))


LECTURE = Recipe(
    name="lecture",
    task="digits",
    net="lecture",
    optimizer="rmsprop",
    learning_rate=1e-3,  # Keras's default
    loss="categorical_crossentropy",
    epochs=5,
    batch_size=64,
    steps=None,
    validation_steps=None,
    height=None,
    width=None,
    seed=1,
    limit=None,
    min_accuracy=0.987,
)

PHOTO_LECTURE = Recipe(
    name="lecture",
    task="photos",
    net="lecture-photos",
    optimizer="rmsprop",
    learning_rate=1e-4,
    loss="binary_crossentropy",
    epochs=30,
    batch_size=20,
    steps=100,
    validation_steps=50,
    height=150,
    width=150,
    seed=1,
    limit=None,
    min_accuracy=0.70,  # 2,000 cats and dogs
)

PHOTO_QUICK = replace(
    PHOTO_LECTURE,
    name="quick",
    net="small-photos",
    learning_rate=1e-3,
    epochs=20,
    batch_size=32,
    steps=40,
    validation_steps=20,
    height=64,
    width=64,
    min_accuracy=0.90,  # of what is easy to tell apart
)

RECIPES = (LECTURE, PHOTO_LECTURE, PHOTO_QUICK)


def find(name: str, task: str) -> Recipe:
    """Returns the recipe of that name.

    Raises:
        UsageError: there is none for this task; the message names those that exist.
    """
    of_task = {recipe.name: recipe for recipe in RECIPES if recipe.task == task}
    if name not in of_task:
        raise UsageError(f"no recipe {name!r} for {task}; there are: {', '.join(of_task)}")
    return of_task[name]
