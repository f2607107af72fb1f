"""Compares what was planned with the rows that are there."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from convserve_scoring import planned_model, shard_files
from convserve_scoring.attempts import Attempts
from convserve_scoring.folders import Folder, open_folder
from convserve_scoring.plan import ROWS, Plan, Shard, read_plan, rows_file
from convserve_scoring.shard_files import SHARD_ERRORS, ShardReader

#: Shards that are compared at a time.
_THREADS = 4


@dataclass
class Findings:
    """What is wrong with the rows of a target folder.

    Attributes:
        shards: planned.
        images: planned.
        done: shards whose rows are all there, each once, by the planned model.
        bad: rows with an error, of files that are not usable images.
        lost: images without a row in shards that have a file of rows.
        repeated: rows beyond one for each image.
        missing: shards without rows that may still be begun.
        failed: shards that were begun as often as they may be, and the last error.
        wrong: shards whose rows are not what they should be, and why.
        strange: files of rows that no shard has.
    """

    shards: int = 0
    images: int = 0
    done: int = 0
    bad: int = 0
    lost: int = 0
    repeated: int = 0
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether each image has its row, once."""
        return not (self.missing or self.failed or self.wrong or self.strange)


def check(target_url: str, say: Callable[[int], None] = lambda _: None) -> Findings:
    """Returns what is wrong with the rows of a target folder.

    Args:
        target_url: path or URL.
        say: called with the number of images of each shard that was compared.

    Raises:
        InputError: there is no plan, or another model than planned.
        OSError: the target cannot be read.
    """
    target = open_folder(target_url)
    plan = read_plan(target)
    planned_model.read(target, plan)
    comparison = _Comparison(target, plan)
    findings = Findings(len(plan.shards), plan.images)
    found = {name for name, _ in target.files(ROWS)}
    findings.strange = sorted(found - {rows_file(shard.name) for shard in plan.shards})
    there = [shard for shard in plan.shards if rows_file(shard.name) in found]
    absent = [shard for shard in plan.shards if rows_file(shard.name) not in found]
    findings.failed = Attempts(target, plan.max_attempts).failures(absent)
    findings.missing = [shard.name for shard in absent if shard.name not in findings.failed]
    say(sum(shard.images for shard in absent))
    with ThreadPoolExecutor(_THREADS) as pool:
        for shard, compared in zip(there, pool.map(comparison.compare, there), strict=True):
            findings.lost += compared.lost
            findings.repeated += compared.repeated
            findings.bad += compared.bad
            if compared.problem:
                findings.wrong[shard.name] = compared.problem
            else:
                findings.done += 1
            say(shard.images)
    return findings


@dataclass(frozen=True)
class _Compared:
    lost: int = 0
    repeated: int = 0
    bad: int = 0
    problem: str = ""


class _Comparison:
    def __init__(self, target: Folder, plan: Plan) -> None:
        self._target = target
        self._model = plan.model
        self._reader = ShardReader(plan, open_folder(plan.source), target)

    def compare(self, shard: Shard) -> _Compared:
        """Compares the rows of a shard with its images, path by path."""
        try:
            with self._target.open(rows_file(shard.name)) as file:
                rows = shard_files.read_rows(file)
        except SHARD_ERRORS as error:
            return _Compared(shard.images, problem=f"its rows cannot be read: {error}")
        try:
            expected = self._reader.paths(shard)
        except SHARD_ERRORS as error:
            return _Compared(problem=f"the shard cannot be read: {error}")
        lost = (Counter(expected) - Counter(rows.paths)).total()
        repeated = (Counter(rows.paths) - Counter(expected)).total()
        problem = ""
        if lost or repeated or len(expected) != shard.images:
            problem = f"expected {shard.images:,} images, got {lost:,} lost, {repeated:,} repeated"
        elif rows.paths != expected:
            problem = "its rows are in another order"
        elif rows.models != {self._model.sha256}:
            got = ", ".join(map(str, rows.models))
            problem = f"expected rows of model {self._model.sha256}, got {got}"
        return _Compared(lost, repeated, rows.bad, problem)
