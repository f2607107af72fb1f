"""Engines without graphs: those for CPUs, and for what CUDA cannot capture."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np

from convserve_bundle.contract import INPUT, OUTPUT
from convserve_server.engines.base import (
    CUDA,
    NOT_MEASURED,
    Inputs,
    Outputs,
    Pixels,
    Probabilities,
)
from convserve_server.engines.batch_sizes import (
    BatchSizes,
    bucket_sizes,
    fitting_sizes,
    seconds_of_thread,
    seconds_passed,
)
from convserve_server.engines.session import SessionEngine
from convserve_server.host.engine_activity import EngineActivity
from convserve_server.host.spare_cpus import SpareCpus

I = TypeVar("I", bound=Inputs)  # noqa: E741 - inputs
O = TypeVar("O", bound=Outputs)  # noqa: E741 - outputs

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
        spare: for batches of a model that is not expensive; None: those run one after the other.
    """

    threads: int
    cpus: frozenset[int]
    activity: EngineActivity
    spare: SpareCpus | None = None


class AnySizeEngine(ABC, Generic[I, O]):
    """Runs batches of any size: on the CPU a new shape costs nothing, padding does.

    Large images gain next to nothing from batches on a CPU, and small batches save memory. On CUDA
    it serves what cannot have graphs.

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
        self._session = session
        self.provider = provider
        self.max_batch = sizes.max_batch
        self._sizes = sizes
        self._activity = activity
        self._make_many_threads = many_threads
        self._one_thread = one_thread
        self._many_threads = session
        #: See Engine; set by who has an allowance.
        self.spare: SpareCpus | None = None

    @abstractmethod
    def _joined(self, parts: Sequence[I]) -> I:
        """Returns the slices of a batch in one piece."""

    @abstractmethod
    def _run(self, session: Any, batch: I) -> O:
        """Returns what a session makes of a batch."""

    @abstractmethod
    def _sample(self, rows: int) -> I:
        """Returns a batch to measure with, and to warm up."""

    def run(self, parts: Sequence[I]) -> O:
        """See Engine.run."""
        batch = parts[0] if len(parts) == 1 else self._joined(parts)
        if self._activity is None:
            return self._run(self._session, batch)
        only_one = self._activity.begin()
        try:
            return self._run(self._many_threads if only_one else self._session, batch)
        finally:
            self._activity.end()

    def warm_up(self, batch_s: Mapping[int, float] = NOT_MEASURED) -> Mapping[int, float]:
        """Chooses the largest batch, runs that to size the arena; see Engine.warm_up."""
        if not batch_s:
            batch_s = self._measure()
        # On a device there may be no memory for a size that was chosen.
        self.max_batch = min(self._sizes.largest(batch_s), max(batch_s))
        self._warm_up_threads((self.max_batch, 1), batch_s[1])
        return batch_s

    def _warm_up_threads(self, sizes: Iterable[int], single_s: float) -> None:
        """Runs batches with each session that requests may meet.

        Args:
            sizes: of the batches, rows.
            single_s: that a batch of one row takes, s.
        """
        if self._activity is not None and single_s > _EXPENSIVE_S:
            self._many_threads = self._make_many_threads()
            # With these the CPUs of others are at work already.
            self.spare = None
        for size in sizes:
            self._run(self._session, self._sample(size))
            if self._many_threads is not self._session:
                self._run(self._many_threads, self._sample(size))

    def _measure(self) -> Mapping[int, float]:
        """Returns the seconds of batches by size, up to the largest that is worth while."""

        def runner(session: Any) -> Callable[[int], object]:
            return lambda count: self._run(session, self._sample(count))

        buckets: Iterable[int] = bucket_sizes(self._sizes.max_batch)
        if self.provider == CUDA:
            run = runner(self._session)
            return self._sizes.measure(run, fitting_sizes(run, buckets), seconds_passed)
        if self._session.get_session_options().intra_op_num_threads == 1:
            return self._sizes.measure(runner(self._session), buckets, seconds_of_thread)
        if self._one_thread is None or self._sizes.chosen:
            return self._sizes.measure(runner(self._session), buckets, seconds_passed)
        alone = self._sizes.measure(runner(self._one_thread()), buckets, seconds_of_thread)
        sizes = dataclasses.replace(self._sizes, max_batch=max(alone), chosen=True)
        return sizes.measure(runner(self._session), [*alone], seconds_passed)


class CpuEngine(SessionEngine, AnySizeEngine[Pixels, Probabilities]):
    """Runs a bundle in batches of any size; see AnySizeEngine."""

    def __init__(
        self,
        session: Any,
        provider: str,
        sizes: BatchSizes,
        activity: EngineActivity | None = None,
        many_threads: Callable[[], Any] = lambda: None,
        one_thread: Callable[[], Any] | None = None,
    ) -> None:
        AnySizeEngine.__init__(self, session, provider, sizes, activity, many_threads, one_thread)
        SessionEngine.__init__(self, session, provider, sizes.max_batch)

    def _joined(self, parts: Sequence[Pixels]) -> Pixels:
        # Joining their bytes takes a quarter of the time that np.concatenate() takes for digits.
        together = b"".join(cast("Sequence[bytes]", parts))
        return np.frombuffer(together, np.uint8).reshape(-1, *self.image_shape)

    def _run(self, session: Any, batch: Pixels) -> Probabilities:
        output: Probabilities = session.run([OUTPUT], {INPUT: batch})[0]
        return output

    def _sample(self, rows: int) -> Pixels:
        return np.zeros((rows, *self.image_shape), np.uint8)
