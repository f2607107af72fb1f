"""Callers that use the library's client without a pause, and count what becomes of their calls."""

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convserve import AsyncClient, Client, ConvserveError

_WAIT_S = 120.0


class Question(NamedTuple):
    """An image, uint8 [H, W, C], and the label that is right."""

    image: NDArray[np.uint8]
    label: str


class Traffic(Protocol):
    """What makes calls."""

    def make(self, counts: "Counts") -> None:
        """Makes calls until counts has no more."""


class Counts:
    """What calls ended with. All methods may be called from any thread.

    Args:
        questions: asked in turn.

    Attributes:
        lost: why calls failed, and how many for each reason; a wrong answer is one.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self.lost: Counter[str] = Counter()
        self._questions = itertools.cycle(questions)
        self._changed = threading.Condition()
        self._ended = 0
        self._stopped = False

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        with self._changed:
            return self._ended

    def next(self) -> Question | None:
        """Returns the next question; None: no more calls are made."""
        with self._changed:
            return None if self._stopped else next(self._questions)

    def end(self, fault: str = "") -> None:
        """Counts a call that has ended; a fault is why it was lost."""
        with self._changed:
            self._ended += 1
            if fault:
                self.lost[fault] += 1
            self._changed.notify_all()

    def wait_for(self, ended: int) -> None:
        """Waits until so many have ended.

        Raises:
            TimeoutError: none ends for two minutes.
        """
        with self._changed:
            while self._ended < ended:
                if not self._changed.wait(_WAIT_S):
                    raise TimeoutError(f"expected {ended} calls, got {self._ended}")

    def stop(self) -> None:
        """Has no more calls made."""
        with self._changed:
            self._stopped = True


class ThreadTraffic:
    """By Client, with a thread for each call in flight."""

    name = "Client"

    def __init__(self, server: str, in_flight: int, **options: Any) -> None:
        self._server = server
        self._in_flight = in_flight
        self._options = options

    def make(self, counts: Counts) -> None:
        """See Traffic."""
        with Client(self._server, **self._options) as client:

            def call() -> None:
                while question := counts.next():
                    try:
                        label = client.classify(question.image).label
                    except ConvserveError as error:
                        counts.end(_reason(error))
                    else:
                        counts.end("" if label == question.label else "a wrong answer")

            with ThreadPoolExecutor(self._in_flight) as threads:
                for running in [threads.submit(call) for _ in range(self._in_flight)]:
                    running.result()


class AsyncTraffic:
    """By AsyncClient, with a task for each call in flight."""

    name = "AsyncClient"

    def __init__(self, server: str, in_flight: int, **options: Any) -> None:
        self._server = server
        self._in_flight = in_flight
        self._options = options

    def make(self, counts: Counts) -> None:
        """See Traffic."""
        asyncio.run(self._make(counts))

    async def _make(self, counts: Counts) -> None:
        async with AsyncClient(self._server, **self._options) as client:

            async def call() -> None:
                while question := counts.next():
                    try:
                        label = (await client.classify(question.image)).label
                    except ConvserveError as error:
                        counts.end(_reason(error))
                    else:
                        counts.end("" if label == question.label else "a wrong answer")

            async with asyncio.TaskGroup() as group:
                for _ in range(self._in_flight):
                    group.create_task(call())


@contextlib.contextmanager
def going_on(traffic: Traffic, counts: Counts) -> Iterator[None]:
    """Makes calls beside what is done inside; at its end those in flight have ended."""
    with ThreadPoolExecutor(1, "traffic") as thread:
        making = thread.submit(traffic.make, counts)
        try:
            yield
        finally:
            counts.stop()
        making.result()


def _reason(error: ConvserveError) -> str:
    return f"{type(error).__name__}: {error}"
