"""Versions published among calls, and which of them answered each call."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.processes import ServerFailed
from convserve_bench.generator import clock
from convserve_bench.outcomes import OK, Ended
from convserve_bench.tally import Tally
from convserve_protos import classifier_pb2 as pb

#: Callers are at their usual pace before the first version is published, and between two, s.
USUAL_S = 2.0
#: After the last answer of the version before, what it held is freed, s.
AFTER_S = 0.5
#: A server that has not switched by then does not, s.
SWITCH_S = 60.0


class Answers(Tally):
    """Keeps of every call when it began and ended, and which version answered.

    Attributes:
        rows: seconds of begin and end, and the version; 0 for a failure.
        last_of: when each version last answered.
    """

    def __init__(self, least_reply_bytes: int) -> None:
        super().__init__(1, least_reply_bytes)
        self.rows: list[tuple[float, float, int]] = []
        self.last_of: dict[int, float] = {}

    def add(self, ended: Sequence[Ended], now_s: float) -> None:
        """See Tally.add."""
        super().add(ended, now_s)
        for started_s, status, reply in ended:
            version = pb.ClassifyResponse.FromString(reply).version if status is OK else 0
            self.rows.append((started_s, now_s, version))
            self.last_of[version] = now_s


class AllPublished(Exception):  # noqa: N818 - nothing is wrong: it ends the load
    """All versions were published, and callers have been at their usual pace since."""


class Publisher:
    """Publishes version after version, each some time after all callers have had the one before.

    Args:
        folder: of the model, with version 1 in it.
        reloads: versions to publish after it.
        answers: what the callers had.

    Attributes:
        windows: when each was published, and when the last answer of the one before came.
    """

    def __init__(self, folder: Path, reloads: int, answers: Answers) -> None:
        self.windows: list[tuple[float, float]] = []
        self._folder = folder
        self._answers = answers
        # Made beforehand: only the renaming is done among the calls.
        for version in range(2, reloads + 2):
            shutil.copytree(folder / "1", folder / f".{version}")
        self._last = reloads + 1
        self._version = 1
        self._published_s = 0.0
        self._due_s = math.inf

    def __call__(self, _seconds: float, _tally: Tally) -> None:
        """Publishes if it is time; called each tick.

        Raises:
            AllPublished: when there is no more to do.
            ServerFailed: if a version does not come to be served.
        """
        now_s = clock()
        if self._due_s == math.inf:
            self._due_s = now_s + USUAL_S
        if len(self.windows) + 1 < self._version:
            self._look_for_the_switch(now_s)
        elif now_s < self._due_s:
            return
        elif self._version == self._last:
            raise AllPublished
        else:
            self._version += 1
            self._published_s = clock()
            (self._folder / f".{self._version}").rename(self._folder / f"{self._version}")

    def _look_for_the_switch(self, now_s: float) -> None:
        last_of = self._answers.last_of
        last_s = max((at for one, at in last_of.items() if one < self._version), default=0.0)
        if self._version in last_of and now_s > last_s + AFTER_S:
            self.windows.append((self._published_s, last_s))
            self._due_s = now_s + USUAL_S
        elif now_s > self._published_s + SWITCH_S:
            raise ServerFailed(f"version {self._version} is not served after {SWITCH_S:g} s")


def stepped_back(
    began: NDArray[np.float64], ended: NDArray[np.float64], version: NDArray[np.float64]
) -> int:
    """How many answers are of an older version than one that came before the call began.

    Args:
        began: of each call, s.
        ended: of each call, s.
        version: that answered it; 0 if none did.
    """
    order = np.argsort(ended, kind="stable")
    newest = np.maximum.accumulate(version[order])
    before = np.searchsorted(ended[order], began, side="left") - 1
    seen = np.where(before >= 0, newest[np.maximum(before, 0)], 0)
    return int(((version < seen) & (version > 0)).sum())
