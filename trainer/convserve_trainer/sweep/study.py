"""The trials of a sweep: drawn, kept, compared; in a folder one process at a time has them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import CheckpointError, DivergedError, TrainerError, UsageError
from convserve_trainer.host import folder_lock
from convserve_trainer.host.signals import Stopped
from convserve_trainer.recipes import recipe_text
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_key
from convserve_trainer.runs.history import Epoch
from convserve_trainer.runs.run_key import RunKey
from convserve_trainer.sweep.space import Space
from convserve_trainer.sweep.trial import trained
from convserve_trainer.wording import counted

FILE = "trials.log"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SHOWN = 5  # of the best
LOSS, SECONDS, EPOCHS, WHY = "loss", "seconds", "epochs", "why"  # kept with each trial
SETTINGS = "settings"  # kept with the study


@dataclass(frozen=True)
class Outcome:
    """How a trial has ended.

    Attributes:
        value: its accuracy on the validation, 0 to 1, if it was trained to the end.
        state: FAIL if it is to be tried again.
        seconds: of the training.
        stopped: whether by Ctrl-C or SIGTERM.
    """

    value: float | None
    state: TrialState
    seconds: float
    stopped: bool


class Sweep:
    """A study in a folder.

    Args:
        study: Optuna's.
        space: that is searched.
        recipe: of all trials, but for the space; has a validation share.
        data: to train on, and the validation; trials see nothing else of it.
    """

    def __init__(self, study: optuna.Study, space: Space, recipe: Recipe, data: Data) -> None:
        self._study = study
        self._space = space
        self._recipe = recipe
        self._data = data

    @property
    def finished(self) -> int:
        """How many trials are finished; those that were stopped are not."""
        return len(self._study.get_trials(deepcopy=False, states=FINISHED))

    def lines(self, trials: int) -> Iterator[str]:
        """Trains until so many trials are finished; yields a line on each.

        What is drawn follows from the seed and the finished trials alone, so that a sweep that
        was killed tries what it would have tried.

        Args:
            trials: in all, those before a stop with them.

        Raises:
            TrainerError: anything a user can mend.
            Stopped: Ctrl-C or SIGTERM.
        """
        while (finished := self.finished) < trials:
            self._study.sampler = TPESampler(
                seed=self._drawing_seed(finished), multivariate=False, constant_liar=False
            )
            yield self._trained(self._study.ask())

    def _drawing_seed(self, number: int) -> int:
        """Returns the seed by which one trial is drawn."""
        return int(np.random.SeedSequence([self._recipe.seed, number]).generate_state(1)[0])

    def _trained(self, trial: Trial) -> str:
        """Trains once; returns a line on it."""
        drawn = self._space.draw(trial)
        begun = time.monotonic()

        def after(epoch: Epoch) -> None:
            trial.set_user_attr(EPOCHS, epoch.epoch)
            assert epoch.val_accuracy is not None
            trial.report(epoch.val_accuracy, epoch.epoch)
            if trial.should_prune() and epoch.epoch < self._recipe_of(drawn).epochs:
                raise optuna.TrialPruned(f"after epoch {epoch.epoch}, below the median")

        value, state, stopped = None, TrialState.FAIL, False
        try:
            best = trained(self._recipe_of(drawn), self._data, after).best
            value, state = best.val_accuracy, TrialState.COMPLETE
            trial.set_user_attr(LOSS, best.val_loss)
        except (optuna.TrialPruned, DivergedError, MemoryError, UsageError) as error:
            state = TrialState.PRUNED
            trial.set_user_attr(WHY, _why(error))
        except Stopped:
            stopped = True
            raise
        finally:
            seconds = time.monotonic() - begun
            finished = self._ended(trial, Outcome(value, state, seconds, stopped))
        return self._line(finished)

    def _ended(self, trial: Trial, outcome: Outcome) -> FrozenTrial:
        """Keeps how a trial has ended."""
        trial.set_user_attr(SECONDS, outcome.seconds)
        return self._study.tell(trial, outcome.value, state=outcome.state)

    def best(self) -> list[FrozenTrial]:
        """Returns the trials that were trained to the end: most accurate first, then least loss."""
        there = self._study.get_trials(states=(TrialState.COMPLETE,))
        return sorted(there, key=lambda trial: (-(trial.value or 0.0), trial.user_attrs[LOSS]))

    def table(self) -> str:
        """Returns the best trials, a line each, for a terminal."""
        rows = [f"{'trial':>5}  accuracy    loss  seconds  settings"]
        rows += [
            f"{trial.number + 1:>5}  {trial.value:>8.4f}  {trial.user_attrs[LOSS]:.4f}  "
            f"{trial.user_attrs[SECONDS]:>7.1f}  {self._settings(trial)}"
            for trial in self.best()[:SHOWN]
        ]
        return "\n".join(rows)

    def best_recipe(self) -> str:
        """Returns the content of best.toml.

        Raises:
            TrainerError: no trial was trained to the end.
        """
        there = self.best()
        if not there:
            raise TrainerError(
                f"none of {counted(self.finished, 'trial')} was trained to the end; more of them "
                "(--trials), or another space, may have one that is"
            )
        trial, validation = there[0], self._data.validation
        assert validation is not None
        recipe = self._recipe_of(self._space.values(trial.params))
        return (
            f"# Trial {trial.number + 1} of a sweep over recipe {self._recipe.name}: accuracy "
            f"{trial.value:.4f} on {len(validation):,} validation {self._data.what}.\n"
            f"{recipe_text.text(recipe)}"
        )

    def _recipe_of(self, drawn: dict[str, object]) -> Recipe:
        """Returns the recipe of a trial; raises UsageError where values do not go together."""
        return self._recipe.override({**self._space.fixed, **drawn})

    def _line(self, trial: FrozenTrial) -> str:
        seconds = f"{trial.user_attrs[SECONDS]:.1f} s"
        if trial.state == TrialState.PRUNED:  # its value is then that of its last epoch
            what = f"stopped: {trial.user_attrs[WHY]}"
        else:
            what = f"accuracy {trial.value:.4f}, loss {trial.user_attrs[LOSS]:.4f}"
        return f"trial {trial.number + 1}: {what}, {seconds}: {self._settings(trial)}"

    def _settings(self, trial: FrozenTrial) -> str:
        values = self._space.values(trial.params)
        return ", ".join(f"{name} = {_short(value)}" for name, value in values.items())


@contextmanager
def opened(folder: Path, settings: RunKey) -> Iterator[optuna.Study]:
    """Provides the study in a folder, held against other processes.

    Args:
        folder: need not exist.
        settings: of the sweep; a study of others is refused.

    Raises:
        CheckpointError: the file system refuses, another process is there, or another study.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock = folder_lock.take(folder, "sweep")
    try:
        study = optuna.create_study(
            storage=storage(folder),
            study_name="sweep",
            direction="maximize",
            pruner=pruner(),
            load_if_exists=True,
        )
        claim(study, settings, str(folder), "folder")
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)  # its process was killed
        yield study
    finally:
        os.close(lock)


def claim(study: optuna.Study, settings: RunKey, where: str, what: str) -> None:
    """Makes a study that of a sweep, or sees that it is.

    Args:
        study: new, or of a sweep.
        settings: of the sweep.
        where: the study is, for messages.
        what: a user may give another of: "folder".

    Raises:
        CheckpointError: it is the study of another sweep.
    """
    before = study.user_attrs.get(SETTINGS)
    if before is None:
        study.set_user_attr(SETTINGS, settings)
    elif differing := run_key.differences(before, settings):
        raise CheckpointError(
            f"{where} holds another sweep: {differing}; give it the same, or another {what} "
            "(--study)"
        )


def pruner() -> MedianPruner:
    """Returns what ends a trial that is below the median of those before it."""
    return MedianPruner(n_startup_trials=5)


def storage(folder: Path) -> JournalStorage:
    """Returns the trials in a folder that no other process has."""
    path = folder / FILE
    if path.exists():
        content = path.read_bytes()
        with path.open("ab") as file:  # a power cut may leave the beginning of a line
            file.truncate(content.rfind(b"\n") + 1)
    # Optuna's own lock would outlive a kill by half a minute.
    return JournalStorage(JournalFileBackend(str(path), _Held(str(path))))


class _Held(JournalFileSymlinkLock):
    """The lock of the folder, which is held already."""

    def acquire(self) -> bool:
        """Returns True."""
        return True

    def release(self) -> None:
        """Keeps it."""


def _why(error: BaseException) -> str:
    return "out of memory" if isinstance(error, MemoryError) else str(error)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
