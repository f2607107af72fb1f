"""An engine that waits until the test lets it go, and callers that keep their outcomes."""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from convserve_server.core.batch_request import Answer, BatchRequest
from convserve_server.core.batch_times import BatchTimes
from convserve_server.core.batcher import Batcher
from convserve_server.core.errors import ServeError
from convserve_server.engines.base import Pixels, Probabilities
from convserve_server.host.spare_cpus import SpareCpus

#: How long we wait for what must come; only a failing test ever waits so long.
PATIENCE_S = 60.0
#: Batches that may be in an engine at the same time.
MOST_RUNS = 4


def images_of(number: int, count: int) -> Pixels:
    """Images that say whose they are: uint8 [count, 1, 1, 4], number (two bytes), index, 255."""
    images = np.full((count, 1, 1, 4), 255, np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = divmod(number, 256)
    images[:, 0, 0, 2] = np.arange(count)
    return images


def owners(batch: Pixels) -> list[tuple[int, int]]:
    """(number, index) of each image."""
    return [(int(a) * 256 + int(b), int(c)) for a, b, c, _ in batch.reshape(-1, 4)]


def rows_of(batch: Pixels) -> Probabilities:
    """What our engines make of a batch: float32 [n, 4], the bytes of the image."""
    return batch.reshape(-1, 4).astype(np.float32)


@dataclass
class Entered:
    """The engine was given a batch."""

    batch: Pixels


@dataclass
class Answered:
    """A request was answered."""

    number: int
    outcome: Answer | ServeError


class GatedEngine:
    """Reports each batch to the test and waits for its verdict."""

    def __init__(self) -> None:
        #: Batches and answers, in the order in which they happened.
        self.events: queue.SimpleQueue[Entered | Answered] = queue.SimpleQueue()
        self._verdicts: queue.SimpleQueue[Exception | int] = queue.SimpleQueue()
        self._open = threading.Event()

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        batch = np.concatenate(images)
        self.events.put(Entered(batch))
        if self._open.is_set():
            return rows_of(batch)
        verdict = self._verdicts.get(timeout=PATIENCE_S)
        if isinstance(verdict, Exception):
            raise verdict
        return rows_of(batch)[: len(batch) - verdict]

    def let_go(self, fault: Exception | None = None, *, missing_rows: int = 0) -> None:
        """End one run: with an exception, or with so many rows too few."""
        self._verdicts.put(missing_rows if fault is None else fault)

    def open(self) -> None:
        """Let the runs that are waiting, and all later ones, go."""
        self._open.set()
        for _ in range(MOST_RUNS):
            self.let_go()

    def entered(self) -> list[tuple[int, int]]:
        """Whose images the next batch has; waits for it."""
        happened = self.events.get(timeout=PATIENCE_S)
        assert isinstance(happened, Entered), happened
        return owners(happened.batch)


@dataclass
class Clock:
    """Stands in for the module time in the batcher; stands still until a test advances it."""

    now: float = 1000.0
    #: Each time that another thread than the test's asked.
    asked: "queue.SimpleQueue[None]" = field(default_factory=queue.SimpleQueue)

    def monotonic(self) -> float:
        if threading.current_thread() is not threading.main_thread():
            self.asked.put(None)
        return self.now


class Caller:
    """Sends one request and keeps its outcomes."""

    def __init__(
        self, number: int, count: int = 1, deadline: float | None = None, name: str = ""
    ) -> None:
        self.outcomes: list[Answer | ServeError] = []
        self._answered = threading.Event()
        self.images = images_of(number, count)
        self.request = BatchRequest(self.images, deadline, self._done, name)

    def _done(self, outcome: Answer | ServeError) -> None:
        self.outcomes.append(outcome)
        self._answered.set()

    def outcome(self) -> Answer | ServeError:
        """The outcome; waits for it."""
        assert self._answered.wait(PATIENCE_S), "no answer"
        return self.outcomes[0]

    def answer(self) -> Answer:
        outcome = self.outcome()
        assert isinstance(outcome, Answer), outcome
        return outcome

    def rows(self) -> list[list[float]]:
        rows: list[list[float]] = self.answer().rows.tolist()
        return rows

    def own_rows(self) -> list[list[float]]:
        rows: list[list[float]] = rows_of(self.images).tolist()
        return rows


class Stage:
    """A batcher over a gated engine, and its clean end."""

    def __init__(self) -> None:
        self.engine = GatedEngine()
        self._batchers: list[Batcher] = []

    def batcher(
        self,
        *,
        max_batch: int = 4,
        max_queue: int = 100,
        max_delay_s: float = 0.0,
        parallel: int = 1,
        spare: SpareCpus | None = None,
        times: BatchTimes | None = None,
    ) -> Batcher:
        batcher = Batcher(
            self.engine.run,
            max_batch=max_batch,
            max_queue=max_queue,
            max_delay_s=max_delay_s,
            name="model digits/1",
            parallel=parallel,
            spare=spare,
            times=times,
        )
        self._batchers.append(batcher)
        return batcher

    def submit(self, batcher: Batcher, *callers: Caller) -> None:
        for caller in callers:
            batcher.submit(caller.request)

    def occupy(self, batcher: Batcher) -> Caller:
        """Fill the engine with a request of one image, number 9999."""
        caller = Caller(9999)
        batcher.submit(caller.request)
        assert self.engine.entered() == [(9999, 0)]
        return caller

    def end(self) -> None:
        self.engine.open()
        for batcher in self._batchers:
            batcher.close()
        for batcher in self._batchers:
            assert batcher.join(PATIENCE_S), "the thread does not end"
            assert batcher.waiting == 0
