"""Calls for models that were unloaded while nobody asked for them, until they are loaded again."""

import threading
import time
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from convserve_server.core.errors import ModelIdle, QueueFull

#: Added to the time that loading took the last time, as a share of it: machines are not always as
#: quick, s for s.
_MARGIN = 0.5


class Parkable(Protocol):
    """The work of one call, which can begin later."""

    #: Name of the model that the call asks for.
    model: str
    #: time.monotonic() after which nobody waits for the answer, or None.
    deadline: float | None

    @property
    def held_bytes(self) -> int:
        """Bytes that it holds."""


P = TypeVar("P", bound=Parkable)


class ParkedCalls(Generic[P]):
    """Keeps calls by their model. Thread-safe.

    Args:
        wake: called with the name of a model when the first call for it is parked, or refused.
    """

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._parked: dict[str, list[P]] = {}
        self._lock = threading.Lock()

    def park(self, work: P, load_s: float, most: int, most_bytes: int) -> None:
        """Keeps a call until its model is loaded, and asks for that.

        Args:
            work: of the call.
            load_s: that loading took the last time.
            most: calls of the model that may be parked; more are refused.
            most_bytes: that these may hold; a single one may hold more.

        Raises:
            ModelIdle: if its deadline would pass before; the model is loaded all the same, so a
                later call may be answered.
            QueueFull: if too many are parked.
        """
        expected_s = load_s * (1 + _MARGIN)
        too_late = work.deadline is not None and work.deadline < time.monotonic() + expected_s
        with self._lock:
            first = work.model not in self._parked
            calls = self._parked.setdefault(work.model, [])
            held = sum(one.held_bytes for one in calls)
            full = len(calls) >= most or (held > 0 and held + work.held_bytes > most_bytes)
            if not too_late and not full:
                calls.append(work)
        if first:
            self._wake(work.model)
        if too_late:
            raise ModelIdle(work.model, expected_s)
        if full:
            raise QueueFull(
                f"{len(calls)} calls wait for model {work.model} to be loaded: expected at most "
                f"{most} of {most_bytes} bytes",
                retry_after_s=expected_s,
            )

    def names(self) -> frozenset[str]:
        """Returns the models for which there are calls."""
        with self._lock:
            return frozenset(self._parked)

    def take(self, names: Collection[str]) -> list[P]:
        """Returns the calls for these models, which can begin now."""
        with self._lock:
            return [work for name in names for work in self._parked.pop(name, ())]

    def forget(self, work: P) -> None:
        """Drops a call that nobody waits for."""
        with self._lock:
            calls = self._parked.get(work.model)
            if calls is not None and work in calls:
                calls.remove(work)
