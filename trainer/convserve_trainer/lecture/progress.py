"""How far the lecture is, and how long it will take."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

BETWEEN_S = 5.0  # lines in a log are no more frequent


class LectureProgress:
    """Prints lines with the share that is done and the time left.

    Args:
        stream: takes them.
        topics: that are asked for, in their order.
        costs: of each topic; only their proportions matter.
        clock: seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        topics: Sequence[str],
        costs: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._clock = stream, clock
        self._costs = {topic: costs[topic] for topic in topics}
        self._begun = clock()
        self._printed = -BETWEEN_S
        self._topic = ""
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._begun

    def start(self, topic: str) -> None:
        """Begins a topic; those before it are done."""
        names = list(self._costs)
        self._topic = topic
        self._before = sum(self._costs[name] for name in names[: names.index(topic)])
        self._printed = -BETWEEN_S
        self.done(0.0, "begun")

    def done(self, share: float, what: str) -> None:
        """Tells that a share of the topic, 0 to 1, is done; not more often than BETWEEN_S."""
        now = self.seconds
        if now - self._printed < BETWEEN_S:
            return
        self._printed = now
        finished = self._before + share * self._costs[self._topic]
        total = sum(self._costs.values())
        left = f"; about {_time(now / finished * (total - finished))} left" if finished else ""
        line = f"{finished / total:4.0%}  {self._topic}: {what}{left}"
        print(line, file=self._stream, flush=True)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
