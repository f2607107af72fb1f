"""The folder of a training: its newest checkpoints, and what it can be watched with.

RUN/checkpoints/epoch-0002.keras             after epoch 2
RUN/checkpoints/epoch-0002-step-000310.keras  310 steps later
RUN/history.csv
RUN/tensorboard/{train,validation}/
RUN/result.json                              of several seeds, once this one is finished

Each of several seeds has such a folder: RUN/seed-7/.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from convserve_host import atomic_file, os_errors
from convserve_trainer.errors import CheckpointError
from convserve_trainer.host import folder_lock
from convserve_trainer.runs import checkpoint
from convserve_trainer.runs.history import History
from convserve_trainer.runs.run_key import DIGEST, CheckpointPolicy, RunKey, differences
from convserve_trainer.runs.run_log import Log
from convserve_trainer.runs.training_state import Position, Training
from convserve_trainer.wording import counted

CHECKPOINTS, RESULT = "checkpoints", "result.json"
NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.keras", re.ASCII)
NEWEST = 2  # checkpoints that are kept, beside that of the last finished epoch

Say = Callable[[str], None]
"""Takes lines for the user."""


class Run:
    """A training's folder, held against other processes from `with` to the end of it.

    Args:
        folder: need not exist.
        settings: of the training; checkpoints of others are refused.
        seconds: between checkpoints within an epoch, at least.
        named: whether the user named it; if not, it goes when nothing is kept in it.

    Attributes:
        folder: see above.
        seconds: see above.
        kept: the newest good checkpoint; None while there is none.
        watch: called with the history after each epoch; must not raise.
    """

    def __init__(self, folder: Path, settings: RunKey, seconds: float, named: bool) -> None:
        self.folder = folder
        self.kept: Position | None = None
        self._named = named
        self._settings = settings
        self.seconds = seconds
        self._saved = time.monotonic()
        self._earlier: list[Position] = []
        self._log = Log(folder)
        self.watch: Callable[[History], None] = _unwatched
        self._lock: int | None = None

    def __enter__(self) -> "Run":
        """Makes the folder.

        Raises:
            CheckpointError: the file system refuses, or another process trains here.
        """
        self._lock = folder_lock.take(self.folder, "training", CHECKPOINTS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Lets go of the folder."""
        self._log.close()
        if not (self._named or found(self.folder) or (self.folder / RESULT).exists()):
            self._remove()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def newest(self, epochs: int, say: Say) -> Training:
        """Returns the training of the newest good checkpoint.

        Args:
            epochs: nothing beyond so many is read.
            say: takes warnings.

        Raises:
            CheckpointError: there is none, or it is of another training.
        """
        there = found(self.folder)
        if not there:
            raise CheckpointError(self._nothing())
        usable = [position for position in there if position <= Position(epochs)]
        if not usable:
            if differing := self._differing(there[-1]):
                raise CheckpointError(self._another(differing))
            least = there[-1].epochs + bool(there[-1].steps)
            raise CheckpointError(
                f"{counted(there[-1].epochs, 'epoch is', 'epochs are')} finished already; --epochs "
                f"{least} or more goes on"
            )
        for position in usable:
            path = file_of(self.folder, position)
            try:
                differing = self._differing(position)
                training = None if differing else checkpoint.load(path)
            except CheckpointError as error:
                say(f"warning: {error}; it is passed over for the one before it")
                continue
            if training is None:
                raise CheckpointError(self._another(differing))
            self.kept = position
            return training
        raise CheckpointError(
            f"no checkpoint in {self.folder} can be read; remove the folder, and start anew"
        )

    def _differing(self, position: Position) -> str:
        """Returns in what the training of a checkpoint differs; raises CheckpointError."""
        settings = checkpoint.settings(file_of(self.folder, position))
        return differences(settings, self._settings)

    def _another(self, differing: str) -> str:
        return (
            f"{self.folder} holds another training: {differing}; give it the same, or start anew "
            "in another folder (--run)"
        )

    def replace(self) -> bool:
        """Makes the first checkpoint replace those of an earlier training, if there are any."""
        self._earlier = found(self.folder)
        return bool(self._earlier)

    def due(self) -> bool:
        """Returns whether the last checkpoint, or the try of one, is long ago."""
        return time.monotonic() - self._saved >= self.seconds

    def keep(self, training: Training) -> None:
        """Writes a checkpoint and removes those that are too old.

        Raises:
            CheckpointError: the file system refuses; the ones before are still kept.
        """
        position = training.position
        before = f"--resume goes on after {self.kept}" if self.kept else "nothing is kept yet"
        try:
            checkpoint.save(training, self._settings, file_of(self.folder, position))
            self.kept = position
            self._prune()
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of {position} cannot be kept in {self.folder}: "
                f"{os_errors.reason(error)}; {before}"
            ) from error
        finally:
            self._saved = time.monotonic()

    def log(self, history: History) -> None:
        """Brings history.csv and the events up to date, and whoever watches.

        Raises:
            CheckpointError: the file system refuses.
        """
        self.watch(history)
        try:
            self._log.write(history)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder} cannot take the log: {os_errors.reason(error)}; the next epoch's "
                "makes up for it"
            ) from error

    def kept_result(self, **more: Any) -> dict[str, Any] | None:
        """Returns what `keep_result` kept here, of the same training; None if there is nothing.

        Args:
            **more: what decides the result beside the settings, as it was given to `keep_result`.

        Raises:
            CheckpointError: it is damaged.
        """
        path = self.folder / RESULT
        try:
            left = json.loads(path.read_text())
            found: dict[str, Any] = left["result"]
            return found if left["of"] == self._settings | more else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); remove it") from error

    def keep_result(self, result: dict[str, Any], **more: Any) -> None:
        """Keeps the result of a finished training here, for JSON, until it is published.

        Raises:
            CheckpointError: the file system refuses.
        """
        try:
            with atomic_file.replaced(self.folder / RESULT) as temporary:
                temporary.write_text(json.dumps({"of": self._settings | more, "result": result}))
        except OSError as error:
            raise CheckpointError(
                f"the result cannot be kept in {self.folder}: {os_errors.reason(error)}"
            ) from error

    def finish(self) -> None:
        """Removes what is kept of a training that is published, unless the user named it."""
        if not self._named:
            shutil.rmtree(self.folder / CHECKPOINTS)
            (self.folder / RESULT).unlink(missing_ok=True)

    def _remove(self) -> None:
        """Removes the folder, and the one above it if it was the last."""
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _prune(self) -> None:
        there = found(self.folder)
        if self._earlier:
            kept = [self.kept]
            self._earlier = []
        else:
            kept = [*there[:NEWEST], next((each for each in there if not each.steps), None)]
        for position in there:
            if position not in kept:
                file_of(self.folder, position).unlink()

    def _nothing(self) -> str:
        nothing = "nothing to resume: no training with these settings and data was stopped"
        name = self.folder.name[:-DIGEST]
        for other in sorted(self.folder.parent.glob(f"{name}{'?' * DIGEST}")):
            for position in found(other)[:1]:
                settings = checkpoint.settings(file_of(other, position))
                if differing := differences(settings, self._settings):
                    return f"{nothing}; that in {other} is another: {differing}"
                return f"{nothing} here; go on with that in {other}: --run {other}"
        return f"{nothing}; it would be in {self.folder}"


def found(folder: Path) -> list[Position]:
    """Returns the checkpoints in the folder of a run, the newest first."""
    names = (NAME.fullmatch(path.name) for path in (folder / CHECKPOINTS).glob("*"))
    return sorted((Position(int(n[1]), int(n[2] or 0)) for n in names if n), reverse=True)


def file_of(folder: Path, position: Position) -> Path:
    """Returns the checkpoint of a position in the folder of a run."""
    step = f"-step-{position.steps:06}" if position.steps else ""
    return folder / CHECKPOINTS / f"epoch-{position.epochs:04}{step}.keras"


def seed_folders(folder: Path, seeds: Sequence[int]) -> list[Path]:
    """Returns the folders in one that the user named: itself for a single seed."""
    return [folder] if len(seeds) == 1 else [folder / f"seed-{seed}" for seed in seeds]


def check(policy: CheckpointPolicy, seeds: Sequence[int] = (1,)) -> None:
    """Checks a folder that the user named, as far as it can be known without the data.

    Args:
        policy: names it.
        seeds: that are to be trained.

    Raises:
        CheckpointError: there is nothing to resume, or something that a new training could
            overwrite; the message says what to do.
    """
    folder = policy.folder
    if folder is None:
        return
    folders = seed_folders(folder, seeds)
    there = [position for each in folders for position in found(each)[:1]]
    if policy.resume and there:
        return
    if policy.resume and not policy.or_start:
        where = " or ".join(dict.fromkeys((str(folders[0]), *(p.name for p in folders[1:]))))
        raise CheckpointError(f"nothing to resume: no checkpoint is in {where}")
    there += found(folder)
    if there:
        raise CheckpointError(
            f"{folder} holds a training, kept up to {there[0]}: go on with --resume, or name "
            "another folder with --run"
        )
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"--run: expected a folder, got {folder}")
    ours = {CHECKPOINTS, *(each.name for each in folders if each != folder)}
    if folder.exists() and any(entry.name not in ours for entry in folder.iterdir()):
        raise CheckpointError(
            f"{folder} holds files, but no checkpoint: name a new folder with --run, or empty it"
        )


def _unwatched(history: History) -> None:
    """Does nothing: nobody watches."""
