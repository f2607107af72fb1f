"""The engine for CPUs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convserve_bundle.contract import INPUT, OUTPUT
from convserve_server.engines.base import NOT_MEASURED, Pixels, Probabilities
from convserve_server.engines.batch_sizes import (
    BatchSizes,
    bucket_sizes,
    seconds_of_thread,
    seconds_passed,
)
from convserve_server.engines.session import SessionEngine
from convserve_server.host.engine_activity import EngineActivity

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

    Large images gain next to nothing from batches on a CPU, and small batches save memory.

    Args:
        session: of ONNX Runtime.
        provider: its name.
        sizes: how the largest batch is chosen.
        activity: of the engines of all workers, if there are others.
        many_threads: makes a session with more threads, which an expensive model (1 ms or more per
            image) uses while the other engines are idle.
        one_thread: makes a session with one thread, if session has more: by its processor time the
            largest batch is chosen, since what several threads do together depends on neighbours.
    """

    def __init__(
        self,
        session: Any,
        provider: str,
        sizes: BatchSizes,
        activity: EngineActivity | None = None,
        many_threads: Callable[[], Any] = lambda: None,
        one_thread: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(session, provider, sizes.max_batch)
        self._sizes = sizes
        self._activity = activity
        self._make_many_threads = many_threads
        self._one_thread = one_thread
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
        """Chooses the largest batch, runs that to size the arena; see Engine.warm_up."""
        image = np.zeros((1, *self.image_shape), np.uint8)

        def run(count: int) -> None:
            self._run(self._session, np.repeat(image, count, axis=0))

        if not batch_s:
            batch_s = self._measure(image)
        self.max_batch = self._sizes.largest(batch_s)
        if self._activity is not None and batch_s[1] > _EXPENSIVE_S:
            self._many_threads = self._make_many_threads()
        for size in (self.max_batch, 1):
            run(size)
            if self._many_threads is not self._session:
                self._run(self._many_threads, np.repeat(image, size, axis=0))
        return batch_s

    def _measure(self, image: Pixels) -> Mapping[int, float]:
        """Returns the seconds of batches by size, up to the largest that is worth while."""

        def runner(session: Any) -> Callable[[int], object]:
            return lambda count: self._run(session, np.repeat(image, count, axis=0))

        buckets = bucket_sizes(self._sizes.max_batch)
        if self._session.get_session_options().intra_op_num_threads == 1:
            return self._sizes.measure(runner(self._session), buckets, seconds_of_thread)
        if self._one_thread is None or self._sizes.chosen:
            return self._sizes.measure(runner(self._session), buckets, seconds_passed)
        alone = self._sizes.measure(runner(self._one_thread()), buckets, seconds_of_thread)
        sizes = dataclasses.replace(self._sizes, max_batch=max(alone), chosen=True)
        return sizes.measure(runner(self._session), [*alone], seconds_passed)
