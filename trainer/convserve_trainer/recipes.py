"""Recipes: everything that decides what is trained, as data.

A recipe is what the manifest keeps as `training.recipe_json`; together with the seed, the data and
the versions it is enough to train the net again.
"""

import json
from dataclasses import asdict, dataclass, replace

from convserve_trainer.errors import UsageError

MAX_SEED = 2**32 - 1  # NumPy's global generator takes no larger one


def _at_least_one(flag: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"--{flag} is {value}; it takes 1 or more")


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
        epochs: passes over the training set, 1 or more.
        batch_size: images a step, 1 or more.
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
    seed: int
    limit: int | None
    min_accuracy: float

    def __post_init__(self) -> None:
        """Raises UsageError where a setting is out of its range."""
        _at_least_one("epochs", self.epochs)
        _at_least_one("batch-size", self.batch_size)
        if self.limit is not None:
            _at_least_one("limit", self.limit)
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"--seed is {self.seed}; it takes 0 to {MAX_SEED}")
        if not 0 <= self.min_accuracy <= 1:
            raise UsageError(f"--min-accuracy is {self.min_accuracy}; it takes 0 to 1")

    def override(
        self,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        limit: int | None = None,
        min_accuracy: float | None = None,
    ) -> "Recipe":
        """Returns the recipe with the settings that are not None.

        The accuracy floor is that of the recipe as written: other epochs, batches or data lift it
        (0.0) unless `min_accuracy` sets one. Another seed does not.

        Raises:
            UsageError: a setting is out of its range.
        """
        changed = replace(
            self,
            epochs=self.epochs if epochs is None else epochs,
            batch_size=self.batch_size if batch_size is None else batch_size,
            limit=self.limit if limit is None else limit,
        )
        if min_accuracy is None:
            min_accuracy = self.min_accuracy if changed == self else 0.0
        seed = self.seed if seed is None else seed
        return replace(changed, seed=seed, min_accuracy=min_accuracy)

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
    seed=1,
    limit=None,
    min_accuracy=0.987,
)

RECIPES = {recipe.name: recipe for recipe in (LECTURE,)}


def find(name: str, task: str) -> Recipe:
    """Returns the recipe of that name.

    Raises:
        UsageError: there is none for this task; the message names those that exist.
    """
    of_task = {recipe.name: recipe for recipe in RECIPES.values() if recipe.task == task}
    if name not in of_task:
        raise UsageError(f"no recipe {name!r} for {task}; there are: {', '.join(of_task)}")
    return of_task[name]
