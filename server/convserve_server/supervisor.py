"""Starts the workers, restarts one that dies, drains all on SIGTERM.

It owns the port (SO_REUSEPORT: the workers listen on it together) and imports nothing heavy.
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
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convserve_server.config import Settings, address
from convserve_server.host import neighbours
from convserve_server.host.cpus import available_cpus, available_set
from convserve_server.host.memory import memory_limit, oom_kills
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

log = logging.getLogger(__name__)

#: Exit status of a worker that would fail again in the same way (EX_CONFIG of sysexits.h).
EXIT_CONFIG = 78
#: What a worker writes to its supervisor when it serves; anything else is why it cannot, in UTF-8.
READY = b"\0"
MOST_SAID = 4096
#: A worker that lived so long is restarted at once, s.
_STABLE_S = 10.0
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 10.0
#: Starts that fail in a row, before any worker has ever served, until we give up.
_MAX_FIRST_FAILURES = 3
#: Beyond the grace period, until a worker that does not end is killed, s.
_KILL_AFTER_S = 5.0


@dataclass
class _Slot:
    """A place for one worker, and what became of those that were in it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    #: Readable with READY when the worker serves, with the reason if it cannot start, and at its
    #: end when the worker is gone.
    ready_fd: int = -1
    #: The reason.
    refusal: str = ""
    started: float = 0.0
    #: How many processes the kernel had killed for want of memory by then.
    oom_kills: int = 0
    ready: bool = False
    failures: int = 0
    #: When to start it again; meaningful while process is None.
    due: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs a server until it is told to stop.

    Args:
        settings: with sizes chosen.
        cpus: the CPU that each worker is kept on; empty to let the system choose.
        wide_threads: for the engine of a worker while the others are idle.
        memory: bytes that we may use.
    """

    def __init__(
        self,
        settings: Settings,
        cpus: Sequence[int] = (),
        wide_threads: int = 1,
        memory: float = math.inf,
    ) -> None:
        self._wide_threads = wide_threads
        self._memory = memory
        self._settings = settings
        self._cpus = cpus
        self._slots = [_Slot(number) for number in range(1, settings.workers + 1)]
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._announced = False
        self._port = 0
        self._temporary = ""
        # Of the kernel's count, those that are known to have been workers of ours.
        self._oom_kills = 0

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; a second one kills.

        Returns: the exit status, 0 after a clean drain.

        Raises:
            StartError: if the port cannot be had, or no worker starts.
        """
        with (
            reserve_port(self._settings.host, self._settings.port) as holder,
            # What workers put there goes with us, also if one of them is killed.
            tempfile.TemporaryDirectory(prefix="convserve-") as self._temporary,
        ):
            self._port = holder.getsockname()[1]
            neighbours.create(self._engines(), self._settings.workers)
            self._watch_signals()
            while not self._signals:
                self._start_due()
                self._wait()
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
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: self._signals.append(received))

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.process is None and slot.due <= time.monotonic():
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        reader, writer = os.pipe()
        settings = json.dumps(dataclasses.asdict(self._settings))
        slot.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "convserve_server.worker",
                settings,
                str(self._port),
                str(writer),
                json.dumps(self._place(slot)),
            ],
            stdin=subprocess.PIPE,
            pass_fds=(writer,),
            # What a user has set is kept.
            env=choose_malloc(self._settings, self._memory)
            | os.environ
            | {"TMPDIR": self._temporary},
        )
        os.close(writer)
        if self._cpus:
            # It has one thread yet; those that it starts inherit this. If it is gone already, the
            # end of its pipe tells.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(slot.process.pid, {self._cpus[slot.number - 1]})
        slot.ready_fd, slot.started, slot.ready = reader, time.monotonic(), False
        slot.refusal = ""
        slot.oom_kills = oom_kills()
        self._selector.register(reader, selectors.EVENT_READ, slot)

    def _place(self, slot: _Slot) -> dict[str, object]:
        """What a worker is told of itself among the others."""
        return {
            "number": slot.number,
            "engines": str(self._engines()),
            "threads": self._wide_threads,
            "cpus": list(self._cpus),
            "tight": is_tight(self._settings, self._memory),
            "batch_s": choose_batch_s(self._settings, self._memory),
        }

    def _engines(self) -> Path:
        return Path(self._temporary, "engines")

    def _wait(self) -> None:
        """Wait for a worker to be ready or gone, for a signal, or for a restart to be due."""
        due = [slot.due for slot in self._slots if slot.process is None]
        timeout = max(0.0, min(due) - time.monotonic()) if due and not self._signals else None
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                self._wakeup[0].recv(4096)
            elif said := os.read(key.fd, MOST_SAID):
                self._on_said(key.data, said)
            else:
                self._on_exit(key.data)

    def _on_said(self, slot: _Slot, said: bytes) -> None:
        if said == READY:
            self._on_ready(slot)
        else:
            slot.refusal = said.decode(errors="replace")

    def _on_ready(self, slot: _Slot) -> None:
        slot.ready = True
        if not self._announced and all(slot.ready for slot in self._slots):
            self._announced = True
            where = address(self._settings.host, self._port)
            log.info(
                "listening on %s: front %s, %d workers with %d engine threads each, models in %s",
                where, self._settings.front, self._settings.workers,
                self._settings.engine_threads, self._settings.models,
                extra={"address": where, "port": self._port},
            )  # fmt: skip

    def _on_exit(self, slot: _Slot) -> None:
        assert slot.process is not None
        self._selector.unregister(slot.ready_fd)
        os.close(slot.ready_fd)
        status = slot.process.wait()
        assert slot.process.stdin is not None
        slot.process.stdin.close()
        slot.process = None
        why = self._why(slot, status)
        if self._signals:
            if status:
                log.error("worker %d ended with status %d%s", slot.number, status, why)
            return
        lived = time.monotonic() - slot.started
        slot.failures = 0 if lived >= _STABLE_S else slot.failures + 1
        if status == EXIT_CONFIG:
            slot.failures = _MAX_FIRST_FAILURES
            if not self._announced:
                return  # with the reason, which needs no line of its own
        delay = (
            min(_LAST_DELAY_S, _FIRST_DELAY_S * 2 ** (slot.failures - 1)) if slot.failures else 0
        )
        slot.due = time.monotonic() + delay
        log.error(
            "worker %d ended with status %d%s after %.1f s; starting it again in %.1f s",
            slot.number, status, why, lived, delay,
        )  # fmt: skip

    def _why(self, slot: _Slot, status: int) -> str:
        """What the worker or the kernel says of its end, and what to do; empty if neither does."""
        if slot.refusal:
            return f" ({slot.refusal})"
        if status != -signal.SIGKILL:
            return ""
        # Several may have been killed before we look: each kill explains one death.
        explained = max(slot.oom_kills, self._oom_kills)
        if oom_kills() <= explained:
            return ""
        self._oom_kills = explained + 1
        return (
            f" (killed by the kernel, out of memory at the limit of {in_mib(self._memory)}: "
            "give the server more memory, or fewer workers (--workers))"
        )

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
            for key, _ in self._selector.select(max(0.0, end - time.monotonic())):
                if key.data is None:
                    self._wakeup[0].recv(4096)
                elif not os.read(key.fd, MOST_SAID):
                    self._on_exit(key.data)
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
            slot.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)

    def _running(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.process is not None]


def supervise(settings: Settings) -> int:
    """Choose sizes for this machine and serve.

    Returns: the exit status.

    Raises:
        StartError: if the server cannot start.
    """
    cpus, memory = available_cpus(), memory_limit()
    sized = choose_sizes(settings, cpus, memory)
    pinned = choose_cpus(sized, cpus, available_set())
    wide = choose_wide(sized, settings, cpus, memory)
    log.info(
        "%g CPUs, memory %s, workers kept on %s, up to %d threads for a lone call; settings: %s",
        cpus, in_mib(memory), pinned or "any", wide, json.dumps(dataclasses.asdict(sized)),
    )  # fmt: skip
    if warning := memory_warning(sized, memory):
        log.warning(warning)
    return Supervisor(sized, pinned, wide, memory).run()
