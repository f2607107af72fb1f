"""Starts the workers, replaces one that dies or hangs, drains all on SIGTERM.

It owns the port (SO_REUSEPORT: the workers listen on it together), decides which worker may load
what, and imports nothing heavy. Nothing that a worker does or a reader of the log leaves undone
makes it wait.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence

from convserve_host.cpus import available_cpus, available_set
from convserve_host.memory import memory_limit, oom_kills
from convserve_server.config import Settings, address
from convserve_server.host import descriptors, neighbours
from convserve_server.host.port import StartError, reserve_port
from convserve_server.host.sizing import (
    choose_batch_s,
    choose_cpus,
    choose_malloc,
    choose_sizes,
    choose_wide,
    in_mib,
    is_tight,
    memory_warning,
)
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

#: Exit status of a worker that would fail again in the same way (EX_CONFIG of sysexits.h).
EXIT_CONFIG = 78
#: A worker that lived so long is restarted at once, s.
_STABLE_S = 10.0
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 5.0
#: Longest wait for a restart while no worker takes calls, s.
_URGENT_DELAY_S = 0.5
#: Starts that fail in a row, before any worker has ever served, until we give up.
_MAX_FIRST_FAILURES = 3
#: Beyond the grace period, until a worker that does not end is killed, s.
_KILL_AFTER_S = 5.0
#: Until a worker that was killed and does not end (the kernel may hold it) is replaced, s.
_ABANDON_AFTER_S = 5.0
#: How often to look at the clock while workers run, s.
_TICK_S = 0.5


class Supervisor:
    """Runs a server until it is told to stop.

    Args:
        settings: with sizes chosen.
        cpus: the CPU that each worker is kept on; empty to let the system choose.
        wide_threads: for the engine of a worker while the others are idle.
        memory: bytes that we may use.
        signals: received before, in the order in which they came.
    """

    def __init__(
        self,
        settings: Settings,
        cpus: Sequence[int] = (),
        wide_threads: int = 1,
        memory: float = math.inf,
        signals: list[int] | None = None,
    ) -> None:
        self._wide_threads = wide_threads
        self._memory = memory
        self._settings = settings
        self._cpus = cpus
        self._slots = [Slot(number) for number in range(1, settings.workers + 1)]
        self._trials = Trials()
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = [] if signals is None else signals
        self._announced = False
        self._port = 0
        self._engines = -1
        # When we last listened to the workers.
        self._awake = 0.0
        # Of the kernel's count, those that are known to have been workers of ours.
        self._oom_kills = 0
        self._last_kills = 0

    def run(self) -> int:
        """Serve until SIGTERM, SIGINT or SIGHUP; a second one kills.

        Returns: the exit status, 0 after a clean drain.

        Raises:
            StartError: if the port cannot be had, or no worker starts.
        """
        with reserve_port(self._settings.host, self._settings.port) as holder:
            self._port = holder.getsockname()[1]
            self._engines = neighbours.create(self._settings.workers)
            self._watch_signals()
            while not self._signals:
                self._start_due()
                self._wait([self._due(slot) for slot in self._slots if slot.process is None])
                self._end_hung()
                if hopeless := self._hopeless():
                    self._end(kill=True)
                    raise StartError(hopeless)
            return self._drain()

    def _watch_signals(self) -> None:
        """Handlers append to a list; the loop acts. A pipe wakes it."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self._selector.register(reader, selectors.EVENT_READ, None)
        watch_signals(self._signals)

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and self._due(slot) <= time.monotonic():
                self._start(slot)

    def _due(self, slot: Slot) -> float:
        """When to start the next worker of a slot: soon while nobody takes calls."""
        serving = any(other.ready for other in self._slots)
        return slot.due if serving else min(slot.due, slot.ended + _URGENT_DELAY_S)

    def _start(self, slot: Slot) -> None:
        settings = json.dumps(dataclasses.asdict(self._settings))
        place = json.dumps(self._place(slot))
        module = [sys.executable, "-m", "convserve_server.worker"]
        try:
            slot.launch(
                [*module, settings, str(self._port), place],
                (self._engines,),
                # What a user has set is kept.
                choose_malloc(self._settings, self._memory) | os.environ,
            )
        except (OSError, MemoryError) as error:
            slot.failures += 1
            self._put_off(slot, f"worker {slot.number} cannot be started: {error}")
            return
        assert slot.process is not None
        assert slot.channel is not None
        if self._cpus:
            # It has one thread yet; those that it starts inherit this. If it is gone already, the
            # end of its socket tells.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(slot.process.pid, {self._cpus[slot.number - 1]})
        slot.oom_kills = self._kills()
        self._selector.register(slot.channel, selectors.EVENT_READ, slot)

    def _put_off(self, slot: Slot, what: str) -> None:
        """Log what happened, and when the next start is."""
        delay = _FIRST_DELAY_S * 2 ** (slot.failures - 1) if slot.failures else 0.0
        slot.ended = time.monotonic()
        slot.due = slot.ended + min(_LAST_DELAY_S, delay)
        log.error("%s; starting it again in %.1f s", what, self._due(slot) - slot.ended)

    def _place(self, slot: Slot) -> dict[str, object]:
        """What a worker is told of itself among the others."""
        return {
            "number": slot.number,
            "engines": self._engines,
            "threads": self._wide_threads,
            "cpus": list(self._cpus),
            "tight": is_tight(self._settings, self._memory),
            "batch_s": choose_batch_s(self._settings, self._memory),
        }

    def _wait(self, until: Sequence[float]) -> None:
        """Wait for messages, the end of a worker, a signal, or one of these points in time."""
        now = time.monotonic()
        timeout = max(0.0, min([now + _TICK_S, *until]) - now)
        self._handle(self._selector.select(timeout))
        self._awake = time.monotonic()
        # If we were held up, as all processes of a container that is paused, so were those whose
        # messages we did not read.
        late_s = self._awake - now - timeout
        if late_s > _TICK_S:
            for slot in self._running():
                slot.excuse(late_s)

    def _handle(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            if key.data is None:
                self._wakeup[0].recv(4096)
            elif key.data.channel is key.fileobj:
                self._read(key.data)

    def _read(self, slot: Slot) -> None:
        assert slot.channel is not None
        slot.channel.flush()
        messages = slot.channel.receive()
        if messages is None:
            self._on_exit(slot)
            return
        for message in messages:
            slot.heard, slot.spoke = time.monotonic(), True
            self._on_message(slot, message)
        self._watch(slot)

    def _watch(self, slot: Slot) -> None:
        """Also wait until a worker reads, if there is something for it."""
        if slot.channel is not None:
            write = selectors.EVENT_WRITE if slot.channel.wants_to_write else 0
            self._selector.modify(slot.channel, selectors.EVENT_READ | write, slot)

    def _on_message(self, slot: Slot, message: Message) -> None:
        if isinstance(message, AsksToLoad):
            verdict = self._trials.ask(slot.number, message.bundle)
            if verdict.verdict == "load":
                log.debug(
                    "worker %d loads %s",
                    slot.number,
                    message.bundle,
                    extra={"worker": slot.number, "pid": slot.process and slot.process.pid},
                )
                slot.loading[message.bundle] = time.monotonic()
            self._tell(slot, verdict)
        elif isinstance(message, Loaded):
            slot.loading.pop(message.bundle, None)
            self._trials.loaded(slot.number, message.bundle)
            self._tell_others(slot)
        elif isinstance(message, Failed):
            slot.loading.pop(message.bundle, None)
            self._trials.failed(slot.number, message.bundle, message.reason)
            self._tell_others(slot)
        elif isinstance(message, Serves):
            self._trials.serves(slot.number, frozenset(message.bundles))
        elif isinstance(message, Problem):
            self._trials.problem(message.entry, message.problem)
        elif isinstance(message, AsksToListen):
            slot.missing = self._trials.missing(slot.number)
            self._tell(slot, MayListen(slot.missing))
            self._announce()
        elif isinstance(message, Ready):
            slot.ready = True
            self._announce()
        elif isinstance(message, CannotStart):
            slot.refusal = message.reason

    def _tell(self, slot: Slot, message: Message) -> None:
        if slot.channel is not None:
            slot.channel.send(message)
            self._watch(slot)

    def _tell_others(self, slot: Slot) -> None:
        for other in self._running():
            if other is not slot:
                self._tell(other, Changed())

    def _announce(self) -> None:
        """Say once that the server is there: every worker takes calls, or waits for its models."""
        if self._announced or not all(slot.ready or slot.missing for slot in self._slots):
            return
        self._announced = True
        where = address(self._settings.host, self._port)
        log.info(
            "listening on %s: front %s, %d workers with %d engine threads each, models in %s",
            where, self._settings.front, self._settings.workers,
            self._settings.engine_threads, self._settings.models,
            extra={"address": where, "port": self._port},
        )  # fmt: skip

    def _end_hung(self) -> None:
        """Kill workers that hang, and give up those that not even that ends."""
        now = time.monotonic()
        if now - self._awake > _TICK_S:
            return  # held up ourselves since we listened
        for slot in self._running():
            assert slot.process is not None
            if slot.killed:
                if now - slot.killed_at > _ABANDON_AFTER_S:
                    self._on_exit(slot)
                continue
            why = ""
            if bundle := slot.overdue(now, self._settings.load_timeout_s):
                why = f"did not finish loading {bundle} in {self._settings.load_timeout_s:g} s"
                # The others that it loads are not to blame.
                slot.loading = {bundle: now}
            elif silence := slot.silent(now, self._settings.heartbeat_s):
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
        why = self._why(slot, status)
        poisoned = self._on_death(slot, status, why)
        if self._signals:
            if status and not slot.killed:
                log.error("worker %d ended with status %d%s", slot.number, status, why)
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
            slot, f"worker {slot.number} ended with status {status}{why} after {lived:.1f} s"
        )

    def _on_death(self, slot: Slot, status: int, why: str) -> bool:
        """Refuse the bundle that a worker was loading when it died; whether there was one."""
        bundles, slot.loading = list(slot.loading), {}
        reason = slot.killed or f"ended with status {status}{why}"
        # Somebody who kills a worker by hand has nothing against the bundle; and of several that
        # were being loaded, one may be innocent.
        explained = bool(why) or bool(slot.killed) or status != -signal.SIGKILL
        known = explained and len(bundles) == 1 and not self._signals
        refused = self._trials.ended(slot.number, bundles, reason, known=known)
        for bundle in refused:
            log.error(
                "%s is not served: the worker that loaded it %s; refused until its file changes "
                "(SHA-256 %s)",
                bundle, reason, bundle.digest[:12],
            )  # fmt: skip
        if bundles:
            self._tell_others(slot)
        return bool(refused)

    def _why(self, slot: Slot, status: int) -> str:
        """What the worker or the kernel says of its end, and what to do; empty if neither does."""
        if slot.refusal:
            return f" ({slot.refusal})"
        if status != -signal.SIGKILL:
            return ""
        # Several may have been killed before we look: each kill explains one death.
        explained = max(slot.oom_kills, self._oom_kills)
        if self._kills() <= explained:
            return ""
        self._oom_kills = explained + 1
        return (
            f" (killed by the kernel, out of memory at the limit of {in_mib(self._memory)}: "
            "give the server more memory, or fewer workers (--workers))"
        )

    def _kills(self) -> int:
        """The kernel's count of processes that it killed for want of memory, as last read."""
        with contextlib.suppress(OSError):  # no descriptor is left to read it
            self._last_kills = oom_kills() or 0
        return self._last_kills

    def _hopeless(self) -> str:
        """Why the server does not even start, empty if it may; later on, it is never given up."""
        if self._announced:
            return ""
        for slot in self._slots:
            if slot.process is None and slot.failures >= _MAX_FIRST_FAILURES:
                return slot.refusal or "no worker starts; the lines above say why"
        return ""

    def _drain(self) -> int:
        log.info("%s: stopping", signal.Signals(self._signals[0]).name)
        self._end(kill=False)
        end = time.monotonic() + self._settings.grace_s + _KILL_AFTER_S
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
            # One that takes no calls yet has nothing to finish, and may be held up in loading.
            if kill or not slot.ready:
                slot.killed, slot.killed_at = "was stopped", time.monotonic()
                slot.process.kill()
            else:
                slot.process.terminate()

    def _running(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.process is not None]


def watch_signals(received: list[int]) -> None:
    """Keep the signals that stop a server in a list from now on.

    SIGHUP stays ignored where the parent ignores it, which is what nohup does.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda signum, _: received.append(signum))


def supervise(settings: Settings, signals: list[int] | None = None) -> int:
    """Choose sizes for this machine and serve.

    Args:
        settings: as given.
        signals: received before; the list is the one of watch_signals.

    Returns: the exit status.

    Raises:
        StartError: if the server cannot start.
    """
    cpus, memory = available_cpus(), memory_limit()
    sized = choose_sizes(settings, cpus, memory)
    pinned = choose_cpus(sized, cpus, available_set())
    wide = choose_wide(sized, settings, cpus, memory)
    log.info(
        "%g CPUs, memory %s, workers kept on %s, up to %d threads for a lone call, %d file "
        "descriptors; settings: %s",
        cpus, in_mib(memory), pinned or "any", wide, descriptors.raise_limit(),
        json.dumps(dataclasses.asdict(sized)),
    )  # fmt: skip
    if warning := memory_warning(sized, memory):
        log.warning(warning)
    return Supervisor(sized, pinned, wide, memory, signals).run()
