"""The real queue of an engine under any load: a fake engine, a fake clock, one thread."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from convserve_server.core.batch_queue import Batch, BatchQueue
from convserve_server.core.batch_request import Answer, BatchRequest, Outcome
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.errors import DeadlinePassed, QueueFull
from convserve_server.core.jobs import Priority

MAX_BATCH = 16
#: Seconds of a batch: as of an engine that has a start and a time for each image.
START_S, IMAGE_S = 0.0005, 0.0005
WHOLE_S = START_S + MAX_BATCH * IMAGE_S

_MOST_IMAGES = 64
_PIXELS = np.zeros((_MOST_IMAGES, 1, 1, 1), np.uint8)
_ROWS = np.zeros((_MOST_IMAGES, 1), np.float32)


def batch_s(images: int) -> float:
    """Seconds that the engine needs for a batch, unless it is slower for a time."""
    return START_S + images * IMAGE_S


def steady(now: float) -> float:
    """See Simulation.slowdown."""
    del now
    return 1.0


@dataclass(frozen=True)
class Source:
    """Calls of one connection, at random times.

    Attributes:
        load: images a second, as part of what the engine can do.
        deadline_s: of each call; None: none.
        images: of each call.
    """

    load: float
    deadline_s: float | None = 10 * WHOLE_S
    images: int = 1
    priority: Priority = Priority.INTERACTIVE


@dataclass
class Tally:
    """What became of the images of a source; each image is in one of them, and in sent."""

    sent: int = 0
    good: int = 0
    late: int = 0
    refused: int = 0
    dropped: int = 0


@dataclass
class Simulation:
    """Plays sources against a queue.

    Attributes:
        sources: of calls.
        slowdown: how many times as long a batch takes that begins at a time.
        steps: arrivals and batches that were played.
        seconds: that were played; busy_s: of them, that the engine ran, all runs together.
        early: requests that could be refused before they are parsed.
        longest_wait_s: of a request, until its first batch.
        images_possible: in the time that batches ran, had they all been full.
    """

    sources: Sequence[Source]
    slowdown: Callable[[float], float] = steady
    parallel: int = 1
    max_wait_s: float = 0.0
    batch_share: float = 0.1
    seed: int = 1
    measured: dict[int, float] = field(
        default_factory=lambda: {n: batch_s(n) for n in (1, 2, 4, 8, 16)}
    )

    def __post_init__(self) -> None:
        self.now = 1000.0
        self.steps = 0
        self.seconds = 0.0
        self.longest_wait_s = 0.0
        self.early = 0
        self.busy_s = 0.0
        self.images_possible = 0.0
        self.tallies = [Tally() for _ in self.sources]
        self.outcomes: Counter[int] = Counter()
        self.queue = BatchQueue(
            BatchTimes(self.measured),
            max_batch=MAX_BATCH,
            max_queue=4096,
            max_wait_s=self.max_wait_s,
            batch_share=self.batch_share,
            parallel=self.parallel,
            name="model digits/1",
        )
        self._random = random.Random(self.seed)
        self._running: list[tuple[float, int, Batch]] = []
        self._numbers = itertools.count()
        self._arrivals: list[tuple[float, int]] = []
        self._accepted = 0

    def play(self, steps: int) -> Self:
        """Plays so many steps and ends what is accepted; checks that each request ends once."""
        began = self.now
        self._arrivals.clear()
        for number in range(len(self.sources)):
            self._come_again(number)
        steps += self.steps
        while self.steps < steps:
            if self._running and self._running[0][0] <= self._arrivals[0][0]:
                self._end_batch()
            else:
                self.now, number = heapq.heappop(self._arrivals)
                self._arrive(number)
                self._come_again(number)
            self._begin_batches()
            self.steps += 1
        self.seconds += self.now - began
        while self._running:
            self._end_batch()
            self._begin_batches()
        assert self.queue.waiting == 0
        assert len(self.outcomes) == self._accepted
        assert set(self.outcomes.values()) <= {1}
        for tally in self.tallies:
            assert tally.good + tally.late + tally.refused + tally.dropped == tally.sent
        return self

    @property
    def possible(self) -> float:
        """Images that the engine could have computed in the time."""
        idle_s = max(0.0, self.parallel * self.seconds - self.busy_s)
        return self.images_possible + idle_s * MAX_BATCH / WHOLE_S

    def goodput(self, *numbers: int) -> float:
        """Images of some sources (of all) in time, as part of what the engine could compute."""
        chosen = [self.tallies[n] for n in numbers] if numbers else self.tallies
        return sum(tally.good for tally in chosen) / self.possible

    def _come_again(self, number: int) -> None:
        source = self.sources[number]
        rate = source.load * self.parallel * MAX_BATCH / WHOLE_S / source.images
        heapq.heappush(self._arrivals, (self.now + self._random.expovariate(rate), number))

    def _arrive(self, number: int) -> None:
        source, tally = self.sources[number], self.tallies[number]
        deadline = None if source.deadline_s is None else self.now + source.deadline_s
        arrival = next(self._numbers)

        def done(outcome: Outcome) -> None:
            self.outcomes[arrival] += 1
            if isinstance(outcome, Answer):
                in_time = deadline is None or self.now <= deadline + 1e-9
                if in_time:
                    tally.good += source.images
                else:
                    tally.late += source.images
            else:
                assert isinstance(outcome, DeadlinePassed | QueueFull)
                tally.dropped += source.images

        tally.sent += source.images
        request = BatchRequest(
            _PIXELS[: source.images], deadline, done, f"connection {number}", source.priority
        )
        request.arrived = self.now
        early = self.queue.refusal_of_any(request.connection, request.priority, deadline, self.now)
        refusal = self.queue.refusal(request, self.now)
        # What is refused before it is parsed would be refused in any case.
        assert early is None or refusal is not None
        self.early += early is not None
        if refusal is not None:
            tally.refused += source.images
            return
        self._accepted += 1
        self.queue.append(request)

    def _begin_batches(self) -> None:
        while len(self._running) < self.parallel and self.queue.window_s(self.now) == 0.0:
            dropped, batch = self.queue.take(self.now)
            for request, error in dropped:
                request.finish(error)
            if batch is not None:
                waits = (self.now - r.arrived for r, at, _ in batch.slices if not at)
                self.longest_wait_s = max(self.longest_wait_s, *waits, 0.0)
                taken_s = batch_s(batch.images) * self.slowdown(self.now)
                self.busy_s += taken_s
                self.images_possible += MAX_BATCH * batch_s(batch.images) / WHOLE_S
                end = self.now + taken_s
                heapq.heappush(self._running, (end, next(self._numbers), batch))

    def _end_batch(self) -> None:
        self.now, _, batch = heapq.heappop(self._running)
        self.queue.ended(batch, self.now)
        for request, _, pixels in batch.slices:
            request.returned += len(pixels)
            if request.returned == request.count and self.queue.finish(request):
                request.finish(Answer(_ROWS[: request.count], 0.0, 0.0))
