"""Joins the control plane to the processes, the models folder and the memory that workers share."""

import logging
import queue
import signal
import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from convserve_server.core.administration import VersionStatus
from convserve_server.host.processors import processors
from convserve_server.host.shared_memory import shared_number
from convserve_server.process.channel import Channel
from convserve_server.process.control_plane import ControlPlane, ToMember
from convserve_server.process.members import Member
from convserve_server.process.memory_check import MemoryCheck
from convserve_server.process.messages import (
    AdminReply,
    AdminRequest,
    Alive,
    Failed,
    InUse,
    Joins,
    Loading,
    Message,
    Mirrored,
    Prepared,
    Retired,
    Staged,
    Wanted,
)
from convserve_server.process.operations import Operations
from convserve_server.process.policies import policy_of
from convserve_server.process.remote_administration import follow
from convserve_server.process.scan import Scan, Scanner, trust_of
from convserve_server.process.slot import Slot
from convserve_server.process.time_store import TimeStore
from convserve_server.process.times import StoredTimes
from convserve_server.settings.settings import Settings
from convserve_server.telemetry.server_state import ModelState, StoreState

log = logging.getLogger(__name__)

#: How often to see what has become due by itself, s.
_ADVANCE_S = 0.25


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
        self._advanced = 0.0
        self._scans: queue.SimpleQueue[Scan | None] = queue.SimpleQueue()
        folder = settings.models.state_dir
        store = TimeStore(Path(folder) if folder else None, processors())
        self._times = StoredTimes(store, settings)
        self.plane = ControlPlane(
            partial(policy_of, settings),
            self._send,
            self._write,
            self._times,
            lambda: self._scanner.scan_now(),
            memory=MemoryCheck(held=bool(settings.security.require_signature)),
        )
        self._operations = Operations(self.plane, settings.models.load_timeout_s)
        self._scanner = Scanner(
            settings.models.path,
            lambda: self.plane.interest,
            self._on_scan,
            trust_of(settings),
        )
        self._scanner.most_bytes = settings.models.max_model_bytes
        self._scans_now = False
        # Of models on object storage: who copies them, what it was sent, and what it reported.
        self._copier: Slot | None = None
        self._in_use = InUse()
        self._mirrored = Mirrored(False, 0.0)

    def start(self) -> None:
        """Looks at the models folder from now on; at that of copies once they are complete."""
        if not self._settings.models.on_store:
            self._start_scans()

    def _start_scans(self) -> None:
        self._scans_now = True
        self._scanner.start(self._settings.models.scan_s)

    def on_settings(self, settings: Settings) -> None:
        """Does as these settings say, as far as they concern what is served."""
        self._settings = self._times.settings = settings
        self._operations.load_timeout_s = settings.models.load_timeout_s
        self._scanner.interval_s = settings.models.scan_s
        self._scanner.most_bytes = settings.models.max_model_bytes
        self._scanner.scan_now()
        self.plane.on_policies(partial(policy_of, settings), time.monotonic())

    def on_message(self, slot: Slot, message: Message) -> None:
        """Notes what a worker says, and does what is asked of the administration."""
        now = time.monotonic()
        if isinstance(message, AdminRequest):
            follow(message, self._operations, partial(self._reply, slot, slot.channel))
        elif isinstance(message, Joins):
            self.plane.on_join(slot, now)
        elif isinstance(message, Loading):
            log.debug(
                "worker %d loads %s", slot.number, message.bundle,
                extra={"worker": slot.number, "pid": slot.process and slot.process.pid},
            )  # fmt: skip
            self.plane.on_loading(slot, message.bundle, now)
        elif isinstance(message, Prepared):
            self.plane.on_prepared(slot, message.bundle, message.findings, now)
        elif isinstance(message, Failed):
            self.plane.on_failed(slot, message.bundle, message.reason, now)
        elif isinstance(message, Alive):
            self.plane.on_used(slot, message.used, now)
        elif isinstance(message, Wanted):
            self.plane.on_wanted(message.name, now)
        elif isinstance(message, Staged):
            self.plane.on_staged(slot, message.generation, now)
        elif isinstance(message, Retired):
            self.plane.on_retired(slot, message.bundle)
        elif isinstance(message, Mirrored):
            self._on_mirrored(message)

    def copier_starts(self, slot: Slot) -> InUse:
        """Returns what a process that copies models has to know; it is sent what changes."""
        self._copier = slot
        self._in_use = self._now_in_use()
        return self._in_use

    def store_state(self) -> StoreState | None:
        """Returns what is known of the object storage of the models; None if it has none."""
        if not self._settings.models.on_store:
            return None
        answers = bool(self._mirrored.reached) and not self._mirrored.problem
        return StoreState(answers, self._mirrored.reached)

    def _on_mirrored(self, message: Mirrored) -> None:
        # A process that was started again has not asked yet when it says so.
        reached = max(message.reached, self._mirrored.reached)
        self._mirrored = replace(message, reached=reached)
        if not message.complete:
            return
        if self._scans_now:
            self._scanner.scan_now()
        else:
            self._start_scans()

    def _now_in_use(self) -> InUse:
        table = self.plane.table
        served = {f"{one.name}/{one.version}" for one in table.bundles}
        served |= {f"{model.name}/{one.version}" for model in table.idle for one in model.versions}
        refused = {f"{one.name}/{one.version}" for one in self.plane.wishes.refused(table)}
        return InUse(tuple(sorted(served)), tuple(sorted(refused)))

    def _tell_copier(self) -> None:
        """Sends what must not be removed, if it has changed."""
        if self._copier is not None and (now := self._now_in_use()) != self._in_use:
            self._in_use = now
            self._send_to(self._copier, now)

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

    def models(self) -> tuple[list[ModelState], str]:
        """Returns all model versions, and the execution provider of the one loaded last."""
        found: list[VersionStatus] = []
        self._operations.statuses(found.extend)
        return [self._model_state(one) for one in found], self.plane.loads.provider

    def _model_state(self, one: VersionStatus) -> ModelState:
        load = self.plane.loads.get(one.name, one.version)
        return ModelState(
            one.name,
            one.version,
            one.state.value,
            load.seconds if load else None,
            (load.memory_bytes or None) if load else None,
        )

    def tick(self) -> None:
        """Does what has become due."""
        now = time.monotonic()
        while not self._scans.empty():
            self.plane.on_scan(self._scans.get(), now)
        # Not with each message: workers are many, and so are their heartbeats.
        if now - self._advanced >= _ADVANCE_S:
            self._advanced = now
            self.plane.advance(now)
            self._tell_copier()

    def stop(self) -> None:
        """Ends what operators have asked for: the server stops."""
        self._operations.close()

    def excuse(self, late_s: float) -> None:
        """Does not count time against workers in which we could not read their messages."""
        self.plane.excuse(late_s)

    def fault(self, slot: Slot, now: float) -> str:
        """Returns what a worker has not done in its time; empty if it is on time."""
        member, models = self._member(slot), self._settings.models
        if member is None:
            return ""
        for bundle, since in member.loading.items():
            if now - since > models.load_timeout_s:
                # The others that it loads are not to blame.
                member.loading = {bundle: now}
                return f"did not finish loading {bundle} in {models.load_timeout_s:g} s"
        limit_s = self._settings.process.heartbeat_s
        if slot in self.plane.late(now, limit_s):
            return f"did not get ready to change versions in {limit_s:g} s"
        return ""

    def is_loading(self, slot: Slot) -> bool:
        """Returns whether a worker loads a bundle: libraries may block all of it meanwhile."""
        member = self._member(slot)
        return member is not None and bool(member.loading)

    def is_lacking(self, slot: Slot) -> bool:
        """Returns whether a worker cannot load what others serve, and so accepts no calls."""
        member = self._member(slot)
        return member is not None and bool(member.lacking)

    def _reply(self, slot: Slot, channel: Channel | None, reply: AdminReply) -> None:
        """Answers a process unless it has ended: its successor has asked for other things."""
        if slot.channel is channel:
            self._send_to(slot, reply)

    def _member(self, slot: Slot) -> Member | None:
        return self.plane.members.get(slot)

    def _on_scan(self, scan: Scan | None) -> None:
        self._scans.put(scan)
        self._wake()

    def _write(self, number: int) -> None:
        self._switch[0] = number

    def _send(self, key: Hashable, message: ToMember) -> None:
        self._send_to(cast("Slot", key), message)
