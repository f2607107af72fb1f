"""What every engine is: a function that has shards scored by their names."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from convserve_scoring.work import Result


class Job(NamedTuple):
    """What an engine is given.

    Attributes:
        target: path or URL of the target folder.
        run: name of this run; see work.work.
        shards: names of those to score.
        workers: processes at a time; 0 for as many as the engine has.
        address: of a cluster; empty for this machine.
    """

    target: str
    run: str
    shards: Sequence[str]
    workers: int = 0
    address: str = ""


class Engine(Protocol):
    """Has shards scored."""

    def __call__(self, job: Job, report: Callable[[Result], None]) -> None:
        """Returns when each shard is done, or was begun as often as it may be.

        Args:
            job: what is to be scored.
            report: called with every result, the last one of a shard being final.

        Raises:
            ScoringError: no shard can be scored.
            OSError: the target cannot be written.
            KeyboardInterrupt: a signal came; no worker is left.
        """
