"""Joins the control plane to the processes, the models folder and the memory that workers share."""

import logging
import queue
import signal
import time
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import cast

from convserve_server.core.tables import Bundle
from convserve_server.host.shared_memory import shared_number
from convserve_server.process.control_plane import ControlPlane, ToMember
from convserve_server.process.members import Member
from convserve_server.process.messages import (
    Failed,
    Joins,
    Message,
    Prepare,
    Prepared,
    Retired,
    Staged,
)
from convserve_server.process.policies import policy_of
from convserve_server.process.scan import Scan, Scanner
from convserve_server.process.slot import Slot
from convserve_server.settings.settings import Settings

log = logging.getLogger(__name__)


class Coordinator:
    """Tells the control plane what happens, and does what it says.

    Args:
        settings: With sizes chosen.
        switch: Descriptor of the number of the table that counts.
        send: Sends a message to a process that runs.
        wake: Has tick() called soon; may be called from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        switch: int,
        send: Callable[[Slot, Message], None],
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._switch = shared_number(switch)
        self._send_to = send
        self._wake = wake
        self._scans: queue.SimpleQueue[Scan | None] = queue.SimpleQueue()
        self.plane = ControlPlane(
            partial(policy_of, settings), self._send, self._write, lambda: self._scanner.scan_now()
        )
        self._scanner = Scanner(
            Path(settings.models.folder), lambda: self.plane.interest, self._on_scan
        )

    def start(self) -> None:
        """Looks at the models folder from now on."""
        self._scanner.start(self._settings.models.scan_s)

    def on_settings(self, settings: Settings) -> None:
        """Does as these settings say, as far as they concern what is served."""
        self._settings = settings
        self._scanner.interval_s = settings.models.scan_s
        self._scanner.scan_now()
        self.plane.on_policies(partial(policy_of, settings), time.monotonic())

    def on_message(self, slot: Slot, message: Message) -> None:
        """Notes what a worker says."""
        now = time.monotonic()
        if isinstance(message, Joins):
            self.plane.on_join(slot, now)
        elif isinstance(message, Prepared):
            self.plane.on_prepared(slot, message.bundle, message.batch_s, now)
        elif isinstance(message, Failed):
            self.plane.on_failed(slot, message.bundle, message.reason, now)
        elif isinstance(message, Staged):
            self.plane.on_staged(slot, message.generation, now)
        elif isinstance(message, Retired):
            self.plane.on_retired(slot, message.bundle)

    def on_leaving(self, slot: Slot) -> None:
        """Notes that a worker was asked to stop while others go on."""
        self.plane.on_leaving(slot, time.monotonic())

    def on_death(self, slot: Slot, status: int, reason: str, *, stopping: bool) -> bool:
        """Refuses the bundle that a worker was loading when it died, if that was the cause.

        Args:
            slot: Of the worker.
            status: Of its exit, negative for a signal.
            reason: See ExitReasons.exit_reason.
            stopping: Whether the server stops.

        Returns: Whether a bundle is refused from now on.
        """
        how = slot.killed or f"ended with status {status}{reason}"
        # Somebody who kills a worker by hand has nothing against the bundle.
        explained = bool(reason) or bool(slot.killed) or status != -signal.SIGKILL
        refused = self.plane.on_end(
            slot, how, explained=explained and not stopping, now=time.monotonic()
        )
        return bool(refused)

    def tick(self) -> None:
        """Does what has become due."""
        now = time.monotonic()
        while not self._scans.empty():
            self.plane.on_scan(self._scans.get(), now)
        self.plane.advance(now)

    def excuse(self, late_s: float) -> None:
        """Does not count time against workers in which we could not read their messages."""
        self.plane.excuse(late_s)

    def fault(self, slot: Slot, now: float) -> str:
        """Returns what a worker has not done in its time; empty if it is on time."""
        member, models = self._member(slot), self._settings.models
        if member is None:
            return ""
        for bundle, since in member.preparing.items():
            if now - since > models.load_timeout_s:
                # The others that it loads are not to blame.
                member.preparing = {bundle: now}
                return f"did not finish loading {bundle} in {models.load_timeout_s:g} s"
        limit_s = self._settings.process.heartbeat_s
        if slot in self.plane.late(now, limit_s):
            return f"did not get ready to change versions in {limit_s:g} s"
        return ""

    def is_loading(self, slot: Slot) -> bool:
        """Returns whether a worker loads a bundle: libraries may block all of it meanwhile."""
        member = self._member(slot)
        return member is not None and bool(member.preparing)

    def is_lacking(self, slot: Slot) -> bool:
        """Returns whether a worker cannot load what others serve, and so accepts no calls."""
        member = self._member(slot)
        return member is not None and bool(member.lacking)

    def _member(self, slot: Slot) -> Member | None:
        return self.plane.members.get(slot)

    def _on_scan(self, scan: Scan | None) -> None:
        self._scans.put(scan)
        self._wake()

    def _write(self, number: int) -> None:
        self._switch[0] = number

    def _send(self, key: Hashable, message: ToMember) -> None:
        slot = cast("Slot", key)
        if isinstance(message, Prepare):
            self._log_loading(slot, message.bundle)
        self._send_to(slot, message)

    def _log_loading(self, slot: Slot, bundle: Bundle) -> None:
        log.debug(
            "worker %d loads %s", slot.number, bundle,
            extra={"worker": slot.number, "pid": slot.process and slot.process.pid},
        )  # fmt: skip
