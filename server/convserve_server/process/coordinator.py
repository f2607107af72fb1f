"""Answers the messages of workers: which of them may load what, and when each may listen."""

import logging
import signal
import time
from collections.abc import Callable, Sequence

from convserve_server.process.messages import (
    AsksToListen,
    AsksToLoad,
    CannotStart,
    Changed,
    Failed,
    Loaded,
    MayListen,
    Message,
    Problem,
    Ready,
    Serves,
)
from convserve_server.process.slot import Slot
from convserve_server.process.trials import Trials

log = logging.getLogger(__name__)


class Coordinator:
    """What the workers of a server know of each other's models.

    Args:
        slots: All workers.
        send: Sends a message to one that runs.
    """

    def __init__(self, slots: Sequence[Slot], send: Callable[[Slot, Message], None]) -> None:
        self._slots = slots
        self._send = send
        self._trials = Trials()

    def on_message(self, slot: Slot, message: Message) -> None:
        """Notes what a worker says, and answers what it asks."""
        if isinstance(message, AsksToLoad):
            self._on_asks_to_load(slot, message)
        elif isinstance(message, Loaded):
            slot.loading.pop(message.bundle, None)
            self._trials.loaded(slot.number, message.bundle)
            self._notify_others(slot)
        elif isinstance(message, Failed):
            slot.loading.pop(message.bundle, None)
            self._trials.failed(slot.number, message.bundle, message.reason)
            self._notify_others(slot)
        elif isinstance(message, Serves):
            self._trials.serves(slot.number, frozenset(message.bundles))
        elif isinstance(message, Problem):
            self._trials.problem(message.entry, message.problem)
        elif isinstance(message, AsksToListen):
            slot.missing = self._trials.missing(slot.number)
            self._send(slot, MayListen(slot.missing))
        elif isinstance(message, Ready):
            slot.ready = True
        elif isinstance(message, CannotStart):
            slot.refusal = message.reason

    def on_death(self, slot: Slot, status: int, reason: str, *, stopping: bool) -> bool:
        """Refuses the bundle that a worker was loading when it died, if that was the cause.

        Args:
            slot: Of the worker.
            status: Of its exit, negative for a signal.
            reason: See ExitReasons.exit_reason.
            stopping: Whether the server stops.

        Returns: Whether a bundle is refused from now on.
        """
        bundles, slot.loading = list(slot.loading), {}
        how = slot.killed or f"ended with status {status}{reason}"
        # Somebody who kills a worker by hand has nothing against the bundle; and of several that
        # were being loaded, one may be innocent.
        explained = bool(reason) or bool(slot.killed) or status != -signal.SIGKILL
        known = explained and len(bundles) == 1 and not stopping
        refused = self._trials.ended(slot.number, bundles, how, known=known)
        for bundle in refused:
            log.error(
                "%s is not served: the worker that loaded it %s; refused until its file changes "
                "(SHA-256 %s)",
                bundle, how, bundle.digest[:12],
            )  # fmt: skip
        if bundles:
            self._notify_others(slot)
        return bool(refused)

    def _on_asks_to_load(self, slot: Slot, message: AsksToLoad) -> None:
        verdict = self._trials.ask(slot.number, message.bundle)
        if verdict.verdict == "load":
            log.debug(
                "worker %d loads %s",
                slot.number,
                message.bundle,
                extra={"worker": slot.number, "pid": slot.process and slot.process.pid},
            )
            slot.loading[message.bundle] = time.monotonic()
        self._send(slot, verdict)

    def _notify_others(self, slot: Slot) -> None:
        for other in self._slots:
            if other is not slot and other.process is not None:
                self._send(other, Changed())
