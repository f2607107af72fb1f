"""A run: the shards that are this driver's, given to an engine, and what became of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

from convserve_scoring import planned_model
from convserve_scoring.attempts import Attempts
from convserve_scoring.engines.base import Engine, Job
from convserve_scoring.folders import open_folder
from convserve_scoring.plan import ROWS, Plan, Shard, read_plan, rows_file
from convserve_scoring.work import Result, State, new_run

ENGINES = ("local", "ray", "dask")


@dataclass
class Share:
    """The shards of a driver.

    Attributes:
        plan: of all.
        shards: that are this driver's.
        there: of those, the names of the ones whose rows were there when it began.
    """

    plan: Plan
    shards: list[Shard]
    there: set[str]

    @property
    def images(self) -> int:
        """In its shards."""
        return sum(shard.images for shard in self.shards)

    @property
    def images_there(self) -> int:
        """In those whose rows were there."""
        return sum(shard.images for shard in self.shards if shard.name in self.there)


@dataclass
class Outcome:
    """What became of the shards of a driver.

    Attributes:
        done: shards whose rows were written since it began.
        there: shards whose rows were there before.
        images: whose rows were written since it began.
        bad: of those, files that are not usable images.
        failed: names of shards that may not be begun again, and why.
        cpu_s: processor time of scoring, without what the engine needs beside.
    """

    done: int = 0
    there: int = 0
    images: int = 0
    bad: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    cpu_s: float = 0.0


def share_of(target_url: str, index: int = 0, of: int = 1) -> Share:
    """Returns the shards of one of several drivers: each of-th one from index on.

    Raises:
        InputError: there is no plan, or another model than planned.
        OSError: the target cannot be read.
    """
    target = open_folder(target_url)
    plan = read_plan(target)
    planned_model.read(target, plan)
    found = {name for name, _ in target.files(ROWS)}
    shards = list(plan.shards[index::of])
    return Share(plan, shards, {shard.name for shard in shards if rows_file(shard.name) in found})


def run(
    target_url: str,
    share: Share,
    engine: str,
    report: Callable[[Result], None],
    *,
    workers: int = 0,
    address: str = "",
    retry_failed: bool = False,
) -> Outcome:
    """Has the shards of a driver scored.

    Args:
        target_url: path or URL.
        share: see share_of.
        engine: one of ENGINES.
        report: called with each result.
        workers: processes at a time; 0 for as many as the engine has.
        address: of a cluster; empty for this machine.
        retry_failed: whether shards that failed are begun again, as if they never had been.

    Raises:
        ScoringError: no shard can be scored.
        OSError: the target cannot be written.
        KeyboardInterrupt: a signal came.
    """
    target = open_folder(target_url)
    target.clean()
    attempts = Attempts(target, share.plan.max_attempts)
    shards = {shard.name: shard for shard in share.shards if shard.name not in share.there}
    if retry_failed:
        for name in attempts.failures(shards.values()):
            attempts.forget(shards[name])
    outcome = Outcome(there=len(share.there))

    def note(result: Result) -> None:
        if result.state in (State.DONE, State.THERE):
            # It was not there when we began: its worker ended before we had its answer.
            outcome.done += 1
            outcome.images += result.images
            outcome.bad += result.bad
            outcome.cpu_s += result.cpu_s
        elif result.state is State.FAILED:
            outcome.failed[result.shard] = result.error
        elif result.state is State.AGAIN:
            attempts.note_ended(shards[result.shard], job.run, result.error)
        report(result)

    job = Job(target.url, new_run(), tuple(shards), workers, address)
    if shards:
        start: Engine = import_module(f"convserve_scoring.engines.{engine}").run
        try:
            start(job, note)
        except BaseException:
            # What was being scored was stopped with us: it is not the shards' fault.
            attempts.withdraw_run(job.run)
            raise
    return outcome
