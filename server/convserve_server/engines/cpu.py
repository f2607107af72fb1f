"""The engine for CPUs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from convserve_bundle.contract import INPUT, OUTPUT
from convserve_server.engines.base import NOT_MEASURED, Pixels, Probabilities
from convserve_server.engines.batch_sizes import bucket_sizes, largest_worthwhile, least_seconds
from convserve_server.engines.session import SessionEngine
from convserve_server.host.engine_activity import EngineActivity

#: Longest run on the CPU, s, by the time of a single image.
BATCH_S = 0.06

#: Time of a single image from which a model is expensive: more threads are worth waking, s.
_EXPENSIVE_S = 0.001


@dataclass(frozen=True)
class ThreadAllowance:
    """What an engine may use on the CPU while no other worker's engine is at work.

    A connection stays with one worker: without this, an only caller of an expensive model would
    keep one CPU busy and leave the others idle.

    Attributes:
        threads: of the engine then.
        cpus: where they may run; empty to leave it to the system.
        activity: of the engines of all workers.
    """

    threads: int
    cpus: frozenset[int]
    activity: EngineActivity


class CpuEngine(SessionEngine):
    """Runs batches of any size: on the CPU a new shape costs nothing, padding does.

    A batch is as large as lowers the cost of an image, and no longer than what arrives meanwhile
    may wait. Large images gain next to nothing from batches on a CPU, and small ones save memory.

    Args:
        session: of ONNX Runtime.
        provider: its name.
        max_batch: maximum batch size, images.
        batch_s: longest run, by the time of a single image.
        activity: of the engines of all workers, if there are others.
        many_threads: makes a session with more threads, which an expensive model (1 ms or more per
            image) uses while the other engines are idle.
    """

    def __init__(
        self,
        session: Any,
        provider: str,
        max_batch: int,
        batch_s: float = BATCH_S,
        activity: EngineActivity | None = None,
        many_threads: Callable[[], Any] = lambda: None,
    ) -> None:
        super().__init__(session, provider, max_batch)
        self._batch_s = batch_s
        self._activity = activity
        self._make_many_threads = many_threads
        self._many_threads = session

    def run(self, images: Sequence[Pixels]) -> Probabilities:
        """See Engine.run."""
        batch = images[0] if len(images) == 1 else np.concatenate(images)
        if self._activity is None:
            return self._run(self._session, batch)
        only_one = self._activity.begin()
        try:
            return self._run(self._many_threads if only_one else self._session, batch)
        finally:
            self._activity.end()

    def _run(self, session: Any, batch: Pixels) -> Probabilities:
        output: Probabilities = session.run([OUTPUT], {INPUT: batch})[0]
        return output

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        """Runs batches from one image up, chooses the largest, runs that to size the arena."""
        table = dict(batch_s)
        image = np.zeros((1, *self.image_shape), np.uint8)

        def run(session: Any, count: int) -> None:
            self._run(session, np.repeat(image, count, axis=0))

        def seconds(count: int) -> float:
            if count not in table:
                table[count] = least_seconds(partial(run, self._session, count))
            return table[count]

        sizes = [size for size in bucket_sizes(self.max_batch) if not batch_s or size in batch_s]
        self.max_batch = largest_worthwhile(seconds, sizes, self._batch_s)
        if self._activity is not None and seconds(1) > _EXPENSIVE_S:
            self._many_threads = self._make_many_threads()
        for session in (self._session, self._many_threads):
            run(session, self.max_batch)
            run(session, 1)
        return table
