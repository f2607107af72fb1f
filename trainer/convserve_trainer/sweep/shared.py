"""A sweep that several workers do, each on a machine of its own: the database is all they share.

A worker asks the database for a trial, says at intervals that it is alive, and keeps the result
there. There is no coordinator: whoever looks marks the trials of dead workers as failed, and queues
them again. Optuna's own loop (`Study.optimize`) has the same parts; ours must also see that the
study does not get more trials than it is to have, and whose trial was given to another worker.
"""

import os
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from convserve_trainer.datasets.pictures import Data
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs.run_key import RunKey
from convserve_trainer.sweep.database import Storage
from convserve_trainer.sweep.space import Space
from convserve_trainer.sweep.study import FINISHED, SECONDS, Outcome, Sweep, claim, pruner
from convserve_trainer.wording import counted

ATTEMPTS = 3  # of a trial whose process dies
LOOK_S = 10  # at most, between two looks at what other workers have
GRACE = "grace seconds"  # kept with the study: workers must agree on it
#: Kept with each trial: the process that has it; how many before it were lost with the same
#: settings; the last of those; that its end is not a loss.
WORKER, LOST, AGAIN, NOT_LOST = "worker", "lost", "again", "not lost"
LIVE = (*FINISHED, TrialState.RUNNING, TrialState.WAITING)


class SharedSweep(Sweep):
    """A study in a database, which other processes add to.

    Args:
        storage: of the study.
        name: of the study.
        settings: of the sweep; a study of others is refused.
        space: that is searched.
        recipe: of all trials, but for the space; has a validation share.
        data: to train on, and the validation; trials see nothing else of it.

    Raises:
        CheckpointError: the study is another sweep's.
        SQLAlchemyError: the database refuses, here and in all methods; Optuna's
            StorageInternalError, too.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        settings: RunKey,
        space: Space,
        recipe: Recipe,
        data: Data,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._storage = storage
        self._grace_s = storage.grace_period or 0
        self._settings_here = settings | {GRACE: self._grace_s}
        self._silent: dict[int, float] = {}  # trials by number; since when, on our clock
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            sampler=TPESampler(),
            pruner=pruner(),
            load_if_exists=True,
        )
        super().__init__(study, space, recipe, data)
        self._claim()

    @property
    def finished(self) -> int:
        """How many trials nobody needs to try again; of a lost one the last attempt counts."""
        return len(self._finished(self._study.get_trials(deepcopy=False)))

    def lines(self, trials: int) -> Iterator[str]:
        """Trains until the study has so many finished trials, whoever trains them.

        A worker that finds nothing to do waits for the others: one of them may die.

        Args:
            trials: of the study, of all workers together.

        Yields:
            A line on each trial of this worker, and where it waits.

        Raises:
            TrainerError: anything a user can mend; the study is now another sweep's.
            Stopped: Ctrl-C or SIGTERM.
        """
        waits = False
        while True:
            self._claim()
            self._fail_stale()
            there = self._study.get_trials(deepcopy=False)
            states = Counter(trial.state for trial in there)
            if not states[TrialState.WAITING] and len(self._finished(there)) >= trials:
                return
            if states[TrialState.WAITING] or len(self._counted(there)) < trials:
                trial = self._asked(trials)
                if trial:
                    waits = False
                    yield self._trained(trial)
                continue
            if not waits:
                waits = True
                running = counted(states[TrialState.RUNNING], "trial")
                yield f"waiting: nothing is left to begin, {running} running in other workers"
            self._fail_silent(there)
            time.sleep(min(LOOK_S, self._storage.heartbeat_interval or 1))

    def _claim(self) -> None:
        # Again and again: two workers that both find a new study may both write into it.
        claim(self._study, self._settings_here, f"study {self._study.study_name}", "name")

    def _asked(self, trials: int) -> Trial | None:
        """Returns a trial of this worker; None if there are enough without it."""
        with warnings.catch_warnings():
            # Optuna says that nobody but its own loop writes heartbeats; here we do.
            warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
            trial = self._study.ask()
        try:
            self._storage.record_heartbeat(self._storage.trial_id(self._study, trial.number))
            trial.set_user_attr(WORKER, _worker(trial.number))
            there = self._study.get_trials(deepcopy=False)
            before = [each for each in self._counted(there) if each.number < trial.number]
            # Others may have asked between our count and our question. Numbers are given once, so
            # the workers agree on who was too late. What is tried again is never too late.
            if len(before) >= trials and LOST not in trial.user_attrs:
                trial.set_user_attr(NOT_LOST, "the study had enough")
                self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
                return None
        except UpdateFinishedTrialError:
            return None
        # By the number: no two workers draw from the same one.
        self._study.sampler = TPESampler(
            seed=self._drawing_seed(trial.number), multivariate=False, constant_liar=True
        )
        return trial

    def _trained(self, trial: Trial) -> str:
        try:
            with self._heartbeats(trial.number):
                return super()._trained(trial)
        except UpdateFinishedTrialError:
            return self._given_away(trial.number)

    def _ended(self, trial: Trial, outcome: Outcome) -> FrozenTrial:
        trial_id = self._storage.trial_id(self._study, trial.number)
        try:
            trial.set_user_attr(SECONDS, outcome.seconds)
            if outcome.stopped:
                trial.set_user_attr(NOT_LOST, "stopped")
            if outcome.state == TrialState.FAIL:
                # One worker alone marks it, and so one alone queues it again.
                self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
                failed = self._storage.get_trial(trial_id)
                again(self._study, failed, lost=_lost(failed) + (not outcome.stopped))
            else:
                self._study.tell(trial, outcome.value, state=outcome.state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            pass  # another worker has marked it; what is returned says so
        return self._storage.get_trial(trial_id)

    def _line(self, trial: FrozenTrial) -> str:
        if trial.state == TrialState.FAIL:
            return self._given_away(trial.number)
        return super()._line(trial)

    def _given_away(self, number: int) -> str:
        return (
            f"trial {number + 1}: its heartbeat was missing for more than {self._grace_s} s, it "
            "is left to whoever tries it again"
        )

    @contextmanager
    def _heartbeats(self, number: int) -> Iterator[None]:
        """Says at intervals that the process of a trial is alive."""
        trial_id = self._storage.trial_id(self._study, number)
        interval = self._storage.heartbeat_interval or 1
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(interval):
                self._storage.record_heartbeat(trial_id)

        # A daemon, waited for no longer than this: a database that does not answer holds up no end.
        thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(interval)

    def _fail_stale(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)

    def _fail_silent(self, there: list[FrozenTrial]) -> None:
        """Marks trials whose worker died before the first heartbeat, which Optuna overlooks."""
        now = time.monotonic()
        silent = [
            trial
            for trial in there
            if trial.state == TrialState.RUNNING
            and trial.user_attrs.get(WORKER, {}).get("trial") != trial.number
        ]
        self._silent = {each.number: self._silent.get(each.number, now) for each in silent}
        for trial in silent:
            if now - self._silent[trial.number] <= self._grace_s:
                continue
            trial_id = self._storage.trial_id(self._study, trial.number)
            try:
                self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
            except UpdateFinishedTrialError:
                continue  # another worker was faster
            again(self._study, trial, lost=_lost(trial) + 1)

    def _finished(self, there: list[FrozenTrial]) -> list[FrozenTrial]:
        return [trial for trial in there if trial.state in FINISHED or _given_up(trial)]

    def _counted(self, there: list[FrozenTrial]) -> list[FrozenTrial]:
        """Returns the trials that count: no trial counts that is tried again."""
        return [trial for trial in there if trial.state in LIVE or _given_up(trial)]


def again(study: optuna.Study, trial: FrozenTrial, lost: int) -> None:
    """Queues a trial with the settings of one that failed.

    Optuna's own callback for this counts a worker that was stopped in good order as a loss, too.

    Args:
        study: of the trial.
        trial: that failed.
        lost: how often that happened with these settings; at ATTEMPTS there is no further one.
    """
    if lost < ATTEMPTS:
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={LOST: lost, AGAIN: trial.number},
            )
        )


def stale(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues a trial again whose heartbeat was missing for too long."""
    again(study, trial, lost=_lost(trial) + 1)


def _lost(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(LOST, 0))


def _given_up(trial: FrozenTrial) -> bool:
    """Returns whether a trial failed as often as one may."""
    failed = trial.state == TrialState.FAIL and NOT_LOST not in trial.user_attrs
    return failed and _lost(trial) + 1 >= ATTEMPTS


def _worker(number: int) -> dict[str, Any]:
    return {"trial": number, "host": socket.gethostname(), "process": os.getpid()}
