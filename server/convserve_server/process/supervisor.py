"""Starts the workers, replaces one that dies or hangs, drains all on SIGTERM.

It owns the port (SO_REUSEPORT: the workers listen on it together), decides which worker may load
what, and imports nothing heavy. Nothing that a worker does or a reader of the log leaves undone
makes it wait.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Sequence

from convserve_host.cpus import available_cpus, available_set
from convserve_host.memory import memory_limit
from convserve_server.host import descriptors, engine_activity
from convserve_server.host.port import StartError, address, reserve_port
from convserve_server.host.resources import ResourcePlan, in_mib, plan_resources
from convserve_server.process.coordinator import Coordinator
from convserve_server.process.exit_reasons import ExitReasons
from convserve_server.process.messages import EXIT_CONFIG, Message
from convserve_server.process.slot import Slot
from convserve_server.process.worker_spec import WorkerSpec
from convserve_server.settings.settings import Settings

log = logging.getLogger(__name__)

#: A worker that lived so long is restarted at once, s.
_STABLE_S = 10.0
#: Starts that fail in a row, before any worker has ever served, until we give up.
_MAX_FIRST_FAILURES = 3
#: Beyond the grace period, until a worker that does not end is killed, s.
_KILL_AFTER_S = 5.0
#: Until a worker that was killed and does not end (the kernel may hold it) is replaced, s.
_ABANDON_AFTER_S = 5.0
#: How often to look at the clock while workers run, s.
_TICK_S = 0.5


class Supervisor:
    """Runs a server until a signal stops it.

    Args:
        plan: For this machine.
        signals: Received before, in the order in which they came.
    """

    def __init__(self, plan: ResourcePlan, signals: list[int] | None = None) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._slots = [Slot(number) for number in range(1, plan.settings.process.workers + 1)]
        self._coordinator = Coordinator(self._slots, self._send)
        self._exit_reasons = ExitReasons(plan.memory)
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = [] if signals is None else signals
        self._announced = False
        self._port = 0
        self._engine_activity = -1
        # When we last read the workers' messages.
        self._awake = 0.0

    def run(self) -> int:
        """Serves until SIGTERM, SIGINT or SIGHUP; a second one kills.

        Returns: The exit status, 0 after a clean drain.

        Raises:
            StartError: The port cannot be had, or no worker starts.
        """
        listen = self._settings.listen
        with reserve_port(listen.host, listen.port) as holder:
            self._port = holder.getsockname()[1]
            self._engine_activity = engine_activity.create(self._settings.process.workers)
            self._watch_signals()
            while not self._signals:
                self._start_due()
                self._wait([self._due(slot) for slot in self._slots if slot.process is None])
                self._end_hung()
                if failure := self._startup_failure():
                    self._end(kill=True)
                    raise StartError(failure)
            return self._drain()

    def _watch_signals(self) -> None:
        """Makes signals wake the loop by a pipe: handlers only append to a list."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self._selector.register(reader, selectors.EVENT_READ, None)
        watch_signals(self._signals)

    # Starting

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and self._due(slot) <= time.monotonic():
                self._start(slot)

    def _due(self, slot: Slot) -> float:
        """Returns when to start the next worker of a slot: soon while none serves."""
        return slot.next_start(urgent=not any(other.ready for other in self._slots))

    def _start(self, slot: Slot) -> None:
        try:
            # What a user has set is kept.
            slot.launch(self._spec(slot), self._plan.malloc_variables() | os.environ)
        except (OSError, MemoryError) as error:
            slot.failures += 1
            self._put_off(slot, f"worker {slot.number} cannot be started: {error}")
            return
        assert slot.process is not None
        assert slot.channel is not None
        if self._plan.cpus:
            # It has one thread yet; those that it starts inherit this. If it is gone already, the
            # end of its socket shows that.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(slot.process.pid, {self._plan.cpus[slot.number - 1]})
        slot.oom_kills = self._exit_reasons.kills()
        self._selector.register(slot.channel, selectors.EVENT_READ, slot)
        self._watch(slot)

    def _spec(self, slot: Slot) -> WorkerSpec:
        return WorkerSpec(
            number=slot.number,
            port=self._port,
            settings=self._settings,
            cpus=self._plan.cpus,
            many_threads=self._plan.many_threads,
            low_memory=self._plan.low_memory,
            batch_s=self._plan.batch_s,
            engine_activity=self._engine_activity,
        )

    def _put_off(self, slot: Slot, what: str) -> None:
        """Logs what happened, and when the next start is."""
        slot.put_off()
        log.error("%s; starting it again in %.1f s", what, self._due(slot) - slot.ended)

    def _startup_failure(self) -> str:
        """Returns why the server does not even start, empty if it may; later it never gives up."""
        if self._announced:
            return ""
        for slot in self._slots:
            if slot.process is None and slot.failures >= _MAX_FIRST_FAILURES:
                return slot.refusal or "no worker starts; the lines above say why"
        return ""

    def _announce(self) -> None:
        """Logs once that the server is there: every worker serves, or waits for its models."""
        if self._announced or not all(slot.ready or slot.missing for slot in self._slots):
            return
        self._announced = True
        listening = address(self._settings.listen.host, self._port)
        log.info(
            "listening on %s: front %s, %d workers with %d engine threads each, models in %s",
            listening, self._settings.listen.front, self._settings.process.workers,
            self._settings.engine.engine_threads, self._settings.models.folder,
            extra={"address": listening, "port": self._port},
        )  # fmt: skip

    # Messages

    def _wait(self, until: Sequence[float]) -> None:
        """Waits for messages, the end of a worker, a signal, or one of these points in time."""
        now = time.monotonic()
        timeout = max(0.0, min([now + _TICK_S, *until]) - now)
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._wakeup[0].recv(4096)
            elif key.data.channel is key.fileobj:
                self._read(key.data)
        self._awake = time.monotonic()
        # If we were stopped, as all processes of a container that is paused, so were those whose
        # messages we did not read.
        late_s = self._awake - now - timeout
        if late_s > _TICK_S:
            for slot in self._running():
                slot.excuse(late_s)

    def _read(self, slot: Slot) -> None:
        assert slot.channel is not None
        slot.channel.flush()
        messages = slot.channel.receive()
        if messages is None:
            self._on_exit(slot)
            return
        for message in messages:
            slot.heard, slot.spoke = time.monotonic(), True
            self._coordinator.on_message(slot, message)
            self._announce()
        self._watch(slot)

    def _watch(self, slot: Slot) -> None:
        """Waits for messages of a worker, and until it reads if there are messages for it."""
        if slot.channel is not None:
            write = selectors.EVENT_WRITE if slot.channel.wants_to_write else 0
            self._selector.modify(slot.channel, selectors.EVENT_READ | write, slot)

    def _send(self, slot: Slot, message: Message) -> None:
        if slot.channel is not None:
            slot.channel.send(message)
            self._watch(slot)

    # Ends

    def _end_hung(self) -> None:
        """Kills workers that hang, and gives up those that even that does not end."""
        now = time.monotonic()
        if now - self._awake > _TICK_S:
            return  # stopped ourselves since we read their messages
        load_timeout_s = self._settings.models.load_timeout_s
        for slot in self._running():
            assert slot.process is not None
            if slot.killed:
                if now - slot.killed_at > _ABANDON_AFTER_S:
                    self._on_exit(slot)
                continue
            why = ""
            if bundle := slot.overdue(now, load_timeout_s):
                why = f"did not finish loading {bundle} in {load_timeout_s:g} s"
                # The others that it loads are not to blame.
                slot.loading = {bundle: now}
            elif silence := slot.silent(now, self._settings.process.heartbeat_s):
                why = f"gave no sign of life for {silence:.1f} s"
            if why:
                log.error("worker %d %s: killed", slot.number, why)
                slot.killed, slot.killed_at = why, now
                slot.process.kill()

    def _on_exit(self, slot: Slot) -> None:
        assert slot.channel is not None
        self._selector.unregister(slot.channel)
        status = slot.release()
        lived = time.monotonic() - slot.started
        slot.ready = False
        if status is None:
            status = -signal.SIGKILL
            log.error("worker %d was killed and does not end; it is replaced", slot.number)
        reason = self._exit_reasons.exit_reason(slot, status)
        poisoned = self._coordinator.on_death(slot, status, reason, stopping=bool(self._signals))
        if self._signals:
            if status and not slot.killed:
                log.error("worker %d ended with status %d%s", slot.number, status, reason)
            return
        if poisoned or lived >= _STABLE_S:
            slot.failures = 0
        else:
            slot.failures += 1
        if status == EXIT_CONFIG:
            slot.failures = _MAX_FIRST_FAILURES
            if not self._announced:
                return  # with the reason, which needs no line of its own
        self._put_off(
            slot, f"worker {slot.number} ended with status {status}{reason} after {lived:.1f} s"
        )

    def _drain(self) -> int:
        log.info("%s: stopping", signal.Signals(self._signals[0]).name)
        self._end(kill=False)
        end = time.monotonic() + self._settings.process.grace_s + _KILL_AFTER_S
        forced = False
        while self._running():
            self._wait([end])
            self._end_hung()
            if not forced and (len(self._signals) > 1 or time.monotonic() >= end):
                log.error("killing %d workers", len(self._running()))
                self._end(kill=True)
                forced = True
                end = time.monotonic() + _KILL_AFTER_S
        log.info("stopped")
        return int(forced)

    def _end(self, *, kill: bool) -> None:
        for slot in self._running():
            assert slot.process is not None
            # One that does not serve yet has nothing to finish, and may be busy loading.
            if kill or not slot.ready:
                slot.killed, slot.killed_at = "was stopped", time.monotonic()
                slot.process.kill()
            else:
                slot.process.terminate()

    def _running(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.process is not None]


def watch_signals(received: list[int]) -> None:
    """Keeps the signals that stop a server in a list from now on.

    SIGHUP stays ignored where the parent ignores it, which is what nohup does.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda signum, _: received.append(signum))


def supervise(settings: Settings, signals: list[int] | None = None) -> int:
    """Plans for this machine and serves.

    Args:
        settings: As given.
        signals: Received before; the list is the one of watch_signals.

    Returns: The exit status.

    Raises:
        StartError: The server cannot start.
    """
    cpus, memory = available_cpus(), memory_limit()
    plan = plan_resources(settings, cpus, memory, available_set())
    log.info(
        "%g CPUs, memory %s, workers kept on %s, up to %d threads for a single call, %d file "
        "descriptors; settings: %s",
        cpus, in_mib(memory), list(plan.cpus) or "any", plan.many_threads,
        descriptors.raise_limit(), json.dumps(dict(plan.settings.items()), default=str),
    )  # fmt: skip
    if warning := plan.memory_warning():
        log.warning(warning)
    return Supervisor(plan, signals).run()
