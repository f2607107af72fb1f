"""What the page of metrics shows of a supervisor: made on its thread when the page asks for it."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from convserve_server.process.slot import Slot
from convserve_server.telemetry.server_state import ModelState, ServerState, StoreState
from convserve_server.telemetry.shared_statistics import SLOTS_OF_PROCESS
from convserve_server.telemetry.totals import Totals

#: Until the page shows how it was before, s: the supervisor may be busy.
_PATIENCE_S = 1.0


class ServerView:
    """Tells how the server is.

    Args:
        slots: All processes, as the supervisor changes them.
        totals: What the workers count.
        models: Returns all model versions, and the execution provider of the one loaded last.
        wake: Has answer() called soon; may be called from any thread.
        store: Returns what is known of the object storage of models; None without one.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        totals: Totals,
        models: Callable[[], tuple[Sequence[ModelState], str]],
        wake: Callable[[], None],
        store: Callable[[], StoreState | None] = lambda: None,
    ) -> None:
        self._slots = slots
        self._store = store
        self._models = models
        self._wake = wake
        self.totals = totals
        self._restarts = Counter({slot.number: 0 for slot in slots if slot.is_worker})
        self._state = ServerState()
        self._asked = False
        self._answers = 0
        self._answered = threading.Condition()

    # On the page's thread

    def state(self) -> ServerState:
        """Returns how the server is now; how it was before if the supervisor does not answer."""
        with self._answered:
            answers, self._asked = self._answers, True
        self._wake()
        with self._answered:
            self._answered.wait_for(lambda: self._answers > answers, _PATIENCE_S)
            return self._state

    # On the supervisor's thread

    def answer(self) -> None:
        """Answers if the page has asked."""
        if not self._asked:
            return
        state = self._now()
        with self._answered:
            self._asked, self._state = False, state
            self._answers += 1
            self._answered.notify_all()

    def on_exit(self, slot: Slot, *, asked: bool) -> None:
        """Notes the end of a process.

        Args:
            slot: Of the process.
            asked: Whether somebody had asked for it.
        """
        if slot.is_worker:
            # It is the same for any number of workers.
            self.totals.clear_gauges(statistics_slot(slot, 0))
            self._restarts[slot.number] += not asked

    def _now(self) -> ServerState:
        workers = [slot for slot in self._slots if slot.is_worker]
        serving = sum(slot.ready and not slot.leaving for slot in workers)
        processes = {"supervisor": [os.getpid()]}
        for slot in self._slots:
            if slot.process is not None:
                processes.setdefault(_process_name(slot), []).append(slot.process.pid)
        models, provider = self._models()
        return ServerState(
            serving=serving,
            starting=sum(not (slot.ready or slot.leaving) for slot in workers),
            restarts=dict(self._restarts),
            processes=processes,
            models=models,
            provider=provider,
            store=self._store(),
        )


def _process_name(slot: Slot) -> str:
    if slot.is_worker or slot.is_guard:
        return f"{'worker' if slot.is_worker else 'guard'}-{slot.number}"
    return "copies" if slot.is_mirror else "administration"


def statistics_slot(slot: Slot, workers: int) -> int:
    """Returns in which slot of the statistics the process of a worker or guard counts.

    Args:
        slot: Of the process.
        workers: How many there are; guards count behind them.
    """
    before = slot.number - 1 + (workers if slot.is_guard else 0)
    return before * SLOTS_OF_PROCESS + slot.bank
