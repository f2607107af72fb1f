"""Starts the processes of a server, each with what it has to know."""

import contextlib
import os
from dataclasses import dataclass

from convserve_server.host.resources import ResourcePlan
from convserve_server.process.keys_file import KeysFile
from convserve_server.process.server_view import statistics_slot
from convserve_server.process.slot import Slot
from convserve_server.process.worker_spec import (
    GuardSpec,
    WorkerSpec,
    encode_settings,
    encode_spec,
)

#: gRPC itself writes a line for each handshake that fails, in a form of its own, so that whoever
#: connects could fill the log.
_QUIET = {"GRPC_VERBOSITY": "ERROR"}


@dataclass(frozen=True)
class Launcher:
    """Starts the processes of slots.

    Attributes:
        port: of the server.
        http_port: of its HTTP, 0 for none.
        guards: how many there are.
        guard_field: header field by which workers know what comes from a guard; "" for none.
        engine_activity: descriptor of shared memory, as those that follow.
        switch: of the control plane's table number.
        statistics: of all processes.
        keys: None: callers need none.
    """

    port: int
    http_port: int
    guards: int
    guard_field: str
    engine_activity: int
    switch: int
    statistics: int
    keys: KeysFile | None

    def start(self, slot: Slot, plan: ResourcePlan) -> None:
        """Starts the process of a slot, on the CPU that the plan has for it.

        Raises:
            OSError: the system does not start it.
            MemoryError: likewise.
        """
        # What a user has set is kept.
        environment = _QUIET | plan.malloc_variables() | os.environ
        if slot.is_worker:
            inherited = [self.engine_activity, self.switch, self.statistics]
            if self.keys is not None:
                inherited.append(self.keys.memory)
            slot.launch(encode_spec(self._worker(slot, plan)), inherited, environment)
        elif slot.is_guard:
            slot.launch(encode_spec(self._guard(slot, plan)), [self.statistics], environment)
        else:
            slot.launch(encode_settings(plan.settings), (), environment)
        assert slot.process is not None
        if plan.cpus and slot.is_worker:
            # It has one thread yet; those that it starts inherit this. If it is gone already, the
            # end of its socket shows that.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(slot.process.pid, {plan.cpus[slot.number - 1]})

    def _worker(self, slot: Slot, plan: ResourcePlan) -> WorkerSpec:
        return WorkerSpec(
            number=slot.number,
            port=self.port,
            http_port=self.http_port,
            settings=plan.settings,
            cpus=plan.cpus,
            many_threads=plan.many_threads,
            low_memory=plan.low_memory,
            batch_s=plan.batch_s,
            engine_activity=self.engine_activity,
            switch=self.switch,
            statistics=self.statistics,
            statistics_slot=statistics_slot(slot, plan.settings.process.workers),
            guard_field=self.guard_field,
            keys=None if self.keys is None else self.keys.text,
            rates=-1 if self.keys is None else self.keys.memory,
        )

    def _guard(self, slot: Slot, plan: ResourcePlan) -> GuardSpec:
        return GuardSpec(
            port=self.port,
            guards=self.guards,
            field=self.guard_field,
            settings=plan.settings,
            statistics=self.statistics,
            statistics_slot=statistics_slot(slot, plan.settings.process.workers),
        )
