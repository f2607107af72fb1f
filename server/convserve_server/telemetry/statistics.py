"""What the versions of models have done since the server started, of all workers together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Durations:
    """A sum of times.

    Attributes:
        count: how many.
        ns: their sum.
    """

    count: int = 0
    ns: int = 0


@dataclass(frozen=True)
class VersionStatistics:
    """What a version of a model has done.

    Attributes:
        name: of the model.
        version: of the model.
        last_ms: when the last batch was done, ms since 1970; 0 if there was none.
        rows: that were computed, images or others.
        batches: that were run.
        success: whole requests that were answered.
        fail: whole requests that ended in an error.
        queue: of requests, waiting for the engine.
        decode: of requests, making pixels of files.
        compute: of requests, in the engine.
        by_size: batches by their size in rows.
    """

    name: str
    version: int
    last_ms: int = 0
    rows: int = 0
    batches: int = 0
    success: Durations = Durations()
    fail: Durations = Durations()
    queue: Durations = Durations()
    decode: Durations = Durations()
    compute: Durations = Durations()
    by_size: Mapping[int, Durations] = field(default_factory=dict)


class Statistics(Protocol):
    """Where protocols read what was counted."""

    def versions(self) -> list[VersionStatistics]:
        """Returns what all versions have done, of all workers, by name and version.

        A version that was unloaded stays as long as there is space for it.
        """
