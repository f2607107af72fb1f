"""Starts the workers, replaces one that dies or hangs, drains all on SIGTERM.

It owns the port (SO_REUSEPORT: the workers listen on it together), has a control plane decide what
they serve, and imports nothing heavy. Nothing that a worker, a volume or a reader of the log leaves
undone makes it wait.
"""

import contextlib
import json
import logging
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from convserve_host.cpus import available_cpus, available_set
from convserve_host.memory import memory_limit
from convserve_server.host import descriptors, engine_activity, guards, shared_memory
from convserve_server.host.port import StartError, address, reserve_port
from convserve_server.host.resources import ResourcePlan, in_mib, plan_resources
from convserve_server.process.coordinator import Coordinator
from convserve_server.process.exit_reasons import ExitReasons
from convserve_server.process.keys_file import KeysFile
from convserve_server.process.launcher import Launcher
from convserve_server.process.messages import (
    EXIT_CONFIG,
    CannotStart,
    Leave,
    Message,
    Ready,
    SetAccessLog,
    SetLogLevel,
    UseKeys,
    UseSettings,
    WorkerPorts,
)
from convserve_server.process.metrics_port import metrics_port
from convserve_server.process.reload import compare, merged
from convserve_server.process.rolling import RollingRestart
from convserve_server.process.server_view import ServerView
from convserve_server.process.slot import ADMIN_HOST, GUARD, MIRROR, Slot
from convserve_server.process.tls_settings import tls_files
from convserve_server.process.worker_spec import encode_settings
from convserve_server.security.certificates import CertificateWatch
from convserve_server.settings.setting import SettingError
from convserve_server.settings.settings import Settings
from convserve_server.telemetry.shared_statistics import statistics_bytes
from convserve_server.telemetry.totals import Totals

#: Reads the settings again, as when the server started; raises SettingError.
Reread = Callable[[], Settings]

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
        given: The settings, as given.
        make_plan: Fits settings to this machine.
        signals: Received before, in the order in which they came.
        reread: Reads the settings again on SIGHUP.
    """

    def __init__(
        self,
        given: Settings,
        make_plan: Callable[[Settings], ResourcePlan],
        signals: list[int] | None = None,
        reread: Reread | None = None,
    ) -> None:
        self._given = given
        self._make_plan = make_plan
        self._plan = make_plan(given)
        self._settings = self._plan.settings
        # What was given and planned before SIGHUP.
        self._before = given, self._plan
        self._reread = reread
        # What was read again, or why it cannot be used; put there by a thread: files may hang.
        self._read_again: queue.SimpleQueue[Settings | SettingError] = queue.SimpleQueue()
        self._slots = [Slot(number) for number in range(1, self._settings.process.workers + 1)]
        self._guards = guards.guards_of(self._settings)
        self._slots += [Slot(number + 1, GUARD) for number in range(self._guards)]
        if self._settings.listen.admin_socket:
            self._slots.append(Slot(0, ADMIN_HOST))
        if self._settings.models.on_store:
            self._slots.append(Slot(0, MIRROR))
        self._roll = RollingRestart(self._slots, self._replace)
        self._exit_reasons = ExitReasons(self._plan.memory)
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = [] if signals is None else signals
        self._announced = False
        # Whether it serves on after a signal to stop, until balancers have noticed.
        self._leaving = False
        self._port = self._http_port = 0
        self._keys: KeysFile | None = None
        # When we last read the workers' messages.
        self._awake = 0.0

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT; a second one kills. SIGHUP reads the settings again.

        Returns: The exit status, 0 after a clean drain.

        Raises:
            StartError: The port cannot be had, the keys are not valid, or no worker starts.
        """
        listen = self._settings.listen
        with contextlib.ExitStack() as holders:
            holder = holders.enter_context(reserve_port(listen.host, listen.port))
            self._port = holder.getsockname()[1]
            if listen.http_port:
                holders.enter_context(reserve_port(listen.host, listen.http_port, "--http-port"))
                self._http_port = listen.http_port
            switch = shared_memory.create_number("convserve-switch")
            statistics = shared_memory.create(
                "convserve-statistics", statistics_bytes(len(self._workers()) + self._guards)
            )
            self._watch_signals()
            self._watch_keys(holders)
            self._launcher = Launcher(
                port=self._port,
                http_port=self._http_port,
                guards=self._guards,
                guard_field=guards.new_field() if self._guards else "",
                engine_activity=engine_activity.create(self._settings.process.workers),
                switch=switch,
                statistics=statistics,
                keys=self._keys,
            )
            if (files := tls_files(self._settings)) is not None:
                # A daemon; the start has just looked.
                CertificateWatch(files).start()
            self._coordinator = Coordinator(self._settings, switch, self._send, self._wake)
            totals = Totals(shared_memory.shared(statistics))
            self._view = ServerView(
                self._slots,
                totals,
                self._coordinator.models,
                self._wake,
                self._coordinator.store_state,
            )
            holders.enter_context(metrics_port(self._settings, self._view))
            self._coordinator.start()
            while not self._stop_signals():
                self._go_on()
                if failure := self._startup_failure():
                    self._end(kill=True)
                    raise StartError(failure)
            self._leave()
            return self._drain()

    def _go_on(self, until: Sequence[float] = ()) -> None:
        """Does what is due, and waits for what comes next, or for one of these points in time."""
        self._start_due()
        due = [self._due(slot) for slot in self._slots if slot.process is None]
        self._wait([*due, *until])
        self._end_hung()
        self._follow_settings()
        self._follow_keys()

    def _watch_signals(self) -> None:
        """Makes signals wake the loop by a pipe: handlers only append to a list."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self._selector.register(reader, selectors.EVENT_READ, None)
        watch_signals(self._signals)

    def _wake(self) -> None:
        """Makes the loop go on; may be called from any thread."""
        with contextlib.suppress(BlockingIOError):  # it has enough to read
            self._wakeup[1].send(b"\0")

    def _stop_signals(self) -> list[int]:
        return [number for number in self._signals if number != signal.SIGHUP]

    # Settings that are read again

    def _follow_settings(self) -> None:
        """Reads the settings again after SIGHUP, and does as they say, one change at a time."""
        if signal.SIGHUP in self._signals:
            while signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
            threading.Thread(target=self._read_settings, name="settings", daemon=True).start()
        self._roll.advance()
        if (reason := self._roll.failed()) is not None:
            log.error(
                "restarting the workers is given up, the settings before hold again: %s",
                reason,
            )
            self._use(*self._before)
        if self._announced and not self._roll.active and not self._read_again.empty():
            self._change_settings(self._read_again.get())

    def _read_settings(self) -> None:
        assert self._reread is not None
        try:
            self._read_again.put(self._reread())
        except SettingError as error:
            self._read_again.put(error)
        self._wake()

    def _change_settings(self, read: Settings | SettingError) -> None:
        try:
            if isinstance(read, SettingError):
                raise read
            changes = compare(self._given, read)
            given = merged(self._given, read)
            plan = self._make_plan(given.replace(workers=self._settings.process.workers))
            if guards.guards_of(plan.settings) != self._guards:
                raise SettingError(
                    "max_connection_age_s: expected a change that keeps the guards, got "
                    "one that adds or removes them; start the server again"
                )
        except SettingError as error:
            log.error("SIGHUP: the settings stay as they are: %s", error)
            return
        log.info("SIGHUP: the settings were read again; %s", changes)
        self._before = self._given, self._plan
        self._use(given, plan)
        if changes.restart:
            self._roll.begin()

    def _use(self, given: Settings, plan: ResourcePlan) -> None:
        """Follows settings, as far as that needs no other workers."""
        self._given, self._plan, self._settings = given, plan, plan.settings
        logs = self._settings.log
        logging.getLogger().setLevel(logs.log_level.upper())
        for slot in self._running():
            self._send(slot, SetLogLevel(logs.log_level))
            self._send(slot, SetAccessLog(logs.access_log, logs.access_log_share))
            if slot.is_mirror:
                self._send(slot, UseSettings(encode_settings(self._settings).decode()))
        self._coordinator.on_settings(self._settings)

    # Keys

    def _watch_keys(self, holders: contextlib.ExitStack) -> None:
        """Reads the keys, and looks from now on whether they change."""
        path = self._settings.security.keys
        if not path:
            return
        try:
            self._keys = KeysFile(Path(path), self._wake)
        except (ValueError, OSError) as error:
            raise StartError(str(error)) from error
        self._keys.start()
        holders.callback(self._keys.close)

    def _follow_keys(self) -> None:
        """Has the workers go by the keys that there are since the file has changed."""
        if self._keys is not None and (text := self._keys.take()) is not None:
            for slot in self._workers():
                self._send(slot, UseKeys(text))

    # Starting

    def _replace(self, slot: Slot) -> None:
        """Asks a worker to finish, since its successor serves."""
        if slot.is_worker:
            self._coordinator.on_leaving(slot)
            self._tell_guards()
        if slot.process is not None:
            log.info("%s is replaced", slot.name)
            slot.process.terminate()

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and self._due(slot) <= time.monotonic():
                self._start(slot)

    def _due(self, slot: Slot) -> float:
        """Returns when to start the next process of a slot: soon while no worker serves."""
        return slot.next_start(urgent=not any(other.ready for other in self._workers()))

    def _start(self, slot: Slot) -> None:
        try:
            self._launcher.start(slot, self._plan)
        except (OSError, MemoryError) as error:
            slot.failures += 1
            self._put_off(slot, f"{slot.name} cannot be started: {error}")
            return
        assert slot.channel is not None
        slot.oom_kills = self._exit_reasons.kills()
        self._selector.register(slot.channel, selectors.EVENT_READ, slot)
        self._watch(slot)
        if slot.is_guard:
            self._send(slot, self._worker_ports())
        elif slot.is_mirror:
            self._send(slot, self._coordinator.copier_starts(slot))

    def _worker_ports(self) -> WorkerPorts:
        serving = [slot for slot in self._workers() if slot.ready and not slot.leaving]
        return WorkerPorts(tuple(slot.port for slot in serving))

    def _tell_guards(self) -> None:
        """Tells all guards which workers accept clients."""
        for slot in self._running():
            if slot.is_guard:
                self._send(slot, self._worker_ports())

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
        serve = any(slot.ready for slot in self._workers())
        if self._announced or not all(
            slot.ready or self._coordinator.is_lacking(slot) or (slot.is_guard and not serve)
            for slot in self._slots
        ):
            return
        self._announced = True
        listening = address(self._settings.listen.host, self._port)
        if self._http_port:
            http = address(self._settings.listen.host, self._http_port)
            log.info(
                "HTTP on http%s://%s", "s" if self._settings.security.tls_cert else "", http,
                extra={"http_address": http, "http_port": self._http_port},
            )  # fmt: skip
        if self._guards:
            log.info("guards before the workers: %d, %s", self._guards, _tls(self._settings))
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
            self._coordinator.excuse(late_s)
            for slot in self._running():
                slot.heard += late_s
        self._coordinator.tick()
        self._view.answer()

    def _read(self, slot: Slot) -> None:
        assert slot.channel is not None
        slot.channel.flush()
        messages = slot.channel.receive()
        if messages is None:
            self._on_exit(slot)
            return
        for message in messages:
            slot.heard, slot.spoke = time.monotonic(), True
            if isinstance(message, Ready):
                slot.ready, slot.port = True, message.port
                if slot.is_worker:
                    self._tell_guards()
                    if self._leaving:
                        self._send(slot, Leave())
            elif isinstance(message, CannotStart):
                slot.refusal = message.reason
            else:
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
        for slot in self._running():
            assert slot.process is not None
            if slot.killed:
                if now - slot.killed_at > _ABANDON_AFTER_S:
                    self._on_exit(slot)
                continue
            why = self._coordinator.fault(slot, now)
            silence = slot.silent(now, self._settings.process.heartbeat_s)
            if not why and silence and not self._coordinator.is_loading(slot):
                why = f"gave no sign of life for {silence:.1f} s"
            if why:
                log.error("%s %s: killed", slot.name, why)
                slot.killed, slot.killed_at = why, now
                slot.process.kill()

    def _on_exit(self, slot: Slot) -> None:
        assert slot.channel is not None
        self._selector.unregister(slot.channel)
        status = slot.release()
        lived = time.monotonic() - slot.started
        slot.ready = False
        if slot.is_worker:
            self._tell_guards()
        if status is None:
            status = -signal.SIGKILL
            log.error("%s was killed and does not end; it is replaced", slot.name)
        reason = self._exit_reasons.exit_reason(slot, status)
        stopping = bool(self._stop_signals()) and not self._leaving
        self._view.on_exit(slot, asked=stopping or slot.leaving)
        poisoned = self._coordinator.on_death(slot, status, reason, stopping=stopping)
        if stopping or slot.leaving:
            if status and not slot.killed:
                log.error("%s ended with status %d%s", slot.name, status, reason)
            return
        if poisoned or lived >= _STABLE_S:
            slot.failures = 0
        else:
            slot.failures += 1
        if status == EXIT_CONFIG:
            slot.failures = _MAX_FIRST_FAILURES
            if not self._announced:
                return  # with the reason, which needs no line of its own
        self._put_off(slot, f"{slot.name} ended with status {status}{reason} after {lived:.1f} s")

    def _leave(self) -> None:
        """Serves on, workers that die being replaced, until balancers know that we stop."""
        delay_s = self._settings.process.shutdown_delay_s
        if not delay_s or not any(slot.ready for slot in self._workers()):
            return
        name = signal.Signals(self._stop_signals()[0]).name
        log.info("%s: serving on for %g s, while health says NOT_SERVING", name, delay_s)
        self._leaving = True
        for slot in self._workers():
            self._send(slot, Leave())
        end = time.monotonic() + delay_s
        while len(self._stop_signals()) < 2 and time.monotonic() < end:
            self._go_on([end])
        self._leaving = False
        if len(self._stop_signals()) > 1:
            # It has ended the delay; the next one kills.
            self._signals.remove(self._stop_signals()[1])

    def _drain(self) -> int:
        log.info("%s: stopping", signal.Signals(self._stop_signals()[0]).name)
        self._coordinator.stop()
        self._end(kill=False)
        end = time.monotonic() + self._settings.process.grace_s + _KILL_AFTER_S
        forced = False
        while self._running():
            self._wait([end])
            self._end_hung()
            if not forced and (len(self._stop_signals()) > 1 or time.monotonic() >= end):
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

    def _workers(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.is_worker]

    def _running(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.process is not None]


def _tls(settings: Settings) -> str:
    """Returns what to log of the TLS of a server."""
    security = settings.security
    if not security.tls_cert:
        return "no TLS"
    if not security.tls_client_ca:
        return "TLS"
    return f"mutual TLS, certificates of clients {security.tls_clients}"


def watch_signals(received: list[int]) -> None:
    """Keeps the signals that concern a server in a list from now on.

    SIGHUP stays ignored where the parent ignores it, which is what nohup does.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda signum, _: received.append(signum))


def supervise(
    settings: Settings, signals: list[int] | None = None, reread: Reread | None = None
) -> int:
    """Plans for this machine and serves.

    Args:
        settings: As given.
        signals: Received before; the list is the one of watch_signals.
        reread: Reads the settings again on SIGHUP; see Reread.

    Returns: The exit status.

    Raises:
        StartError: The server cannot start.
    """
    cpus, memory = available_cpus(), memory_limit()
    make_plan = partial(plan_resources, cpus=cpus, memory=memory, affinity=available_set())
    plan = make_plan(settings)
    log.info(
        "%g CPUs, memory %s, workers kept on %s, up to %d threads for a single call, %d file "
        "descriptors; settings: %s",
        cpus, in_mib(memory), list(plan.cpus) or "any", plan.many_threads,
        descriptors.raise_limit(), json.dumps(dict(plan.settings.items()), default=str),
    )  # fmt: skip
    if warning := plan.memory_warning():
        log.warning(warning)
    return Supervisor(settings, make_plan, signals, reread).run()
