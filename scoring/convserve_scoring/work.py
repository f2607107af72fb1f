"""What every engine calls: scores one shard, by its name.

Safe to call any number of times, anywhere, at the same time: the rows of a shard are there whole or
not at all, and where they are there nothing is done.
"""

import enum
import errno
import faulthandler
import time
import uuid
from collections.abc import Callable
from functools import lru_cache

import msgspec

from convserve_bundle.errors import BundleError
from convserve_scoring import planned_model, shard_files
from convserve_scoring.attempts import Attempts
from convserve_scoring.errors import ScoringError
from convserve_scoring.folders import Folder, open_folder
from convserve_scoring.plan import Plan, Shard, read_plan, rows_file
from convserve_scoring.scorer import Row, Scorer
from convserve_scoring.shard_files import ShardReader
from convserve_server.engines.base import EngineError

#: The descriptor, since an engine may have put something else in the place of sys.stderr.
_STDERR = 2

#: What every shard would meet: no attempt is used up by it.
_NO_SHARDS_FAULT = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}


class State(enum.StrEnum):
    """What became of a shard."""

    #: Its rows were written.
    DONE = "done"
    #: Its rows were there.
    THERE = "there"
    #: It was not scored, and may be begun again.
    AGAIN = "again"
    #: It was begun as often as it may be.
    FAILED = "failed"
    #: The worker was asked to stop.
    STOPPED = "stopped"


class Result(msgspec.Struct, frozen=True):
    """What became of a shard.

    Attributes:
        shard: its name.
        state: what became of it.
        images: that were scored.
        bad: of those, files that are not usable images.
        cpu_s: processor time of the thread that scored them.
        error: why it was not scored.
    """

    shard: str
    state: State
    images: int = 0
    bad: int = 0
    cpu_s: float = 0.0
    error: str = ""


def never() -> bool:
    """Returns False: nobody asks to stop."""
    return False


class Worker:
    """The plan, the model and the folders of a process.

    Args:
        target: path or URL of the target folder.

    Raises:
        ScoringError: the plan or the model cannot be used.
        OSError: they cannot be read.
    """

    def __init__(self, target: str) -> None:
        self._target = open_folder(target)
        self.plan = read_plan(self._target)
        self._shards = {shard.name: shard for shard in self.plan.shards}
        self._attempts = Attempts(self._target, self.plan.max_attempts)
        self._reader = ShardReader(self.plan, open_folder(self.plan.source), self._target)
        self._scorer = load(self._target, self.plan)

    def work(self, name: str, run: str, stop: Callable[[], bool] = never) -> Result:
        """Scores a shard, unless that is done or was tried too often.

        Args:
            name: of the shard.
            run: that this attempt belongs to.
            stop: asked between blocks of images whether to give up.

        Raises:
            OSError: its rows cannot be written, nor those of any other shard.
        """
        shard = self._shards[name]
        if self._target.exists(rows_file(name)):
            with self._target.open(rows_file(name)) as file:
                found = shard_files.read_rows(file)
            return Result(name, State.THERE, len(found.paths), found.bad)
        attempt = self._attempts.begin(shard, run)
        if attempt is None:
            error = self._attempts.last_error(shard)
            return Result(name, State.FAILED, error=error or "")
        began = time.thread_time()
        try:
            scored = self._score_shard(shard, stop)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other shards go on
            if isinstance(error, OSError) and error.errno in _NO_SHARDS_FAULT:
                self._attempts.withdraw(attempt)
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._attempts.note(attempt, shard, run, reason)
            return Result(name, State.AGAIN, error=reason)
        finally:
            faulthandler.cancel_dump_traceback_later()
        if scored is None:
            self._attempts.withdraw(attempt)
            return Result(name, State.STOPPED)
        self._attempts.forget(shard)
        bad = sum(row.error is not None for row in scored)
        return Result(name, State.DONE, len(scored), bad, time.thread_time() - began)

    def _score_shard(self, shard: Shard, stop: Callable[[], bool]) -> list[Row] | None:
        """Writes the rows of a shard; returns them, or None if it was stopped."""
        paths: list[str | None] = []
        rows: list[Row] = []
        self._watch()
        for block in self._reader.blocks(shard, self.plan.batch):
            if stop():
                return None
            paths += [image.path for image in block]
            answers = self._scorer.score_block([image.content for image in block])
            rows += [
                Row(error=image.fault) if image.fault else answer
                for image, answer in zip(block, answers, strict=True)
            ]
            self._watch()
        content = shard_files.rows_content(self.plan.model, paths, rows)
        self._target.write(rows_file(shard.name), content)
        return rows

    def _watch(self) -> None:
        """Has the process end, unless this is called again in time; it counts as an attempt.

        A decoder or a driver that hangs may hold the GIL: the watch is a thread that needs none. It
        says on standard error where the process was.
        """
        if self.plan.hang_s:
            faulthandler.dump_traceback_later(self.plan.hang_s, exit=True, file=_STDERR)


def load(target: Folder, plan: Plan) -> Scorer:
    """Returns the model of a plan, warm.

    Raises:
        ScoringError: it is another one, or cannot be used.
        OSError: it cannot be read.
    """
    held = planned_model.read(target, plan)
    try:
        scorer = Scorer(held, plan.device, plan.batch, plan.max_pixels, plan.max_decoder_bytes)
    except (BundleError, EngineError) as error:
        raise ScoringError(str(error)) from error
    held.release()
    return scorer


@lru_cache(maxsize=1)
def worker_of(target: str) -> Worker:
    """Returns the worker of this process; the model is loaded once."""
    return Worker(target)


def work(target: str, name: str, run: str) -> Result:
    """Scores a shard in whatever process an engine runs it; see Worker.work."""
    return worker_of(target).work(name, run)


def new_run() -> str:
    """Returns a name for a run of a driver."""
    return uuid.uuid4().hex[:12]
