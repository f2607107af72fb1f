"""Starts the workers, restarts one that dies, drains all on SIGTERM.

It owns the port (SO_REUSEPORT: the workers listen on it together) and imports nothing heavy.
"""

import contextlib
import dataclasses
import json
import logging
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
from importlib import metadata
from pathlib import Path

from convserve_server import neighbours
from convserve_server.config import Settings, address
from convserve_server.cpus import available_cpus, available_set

log = logging.getLogger(__name__)

#: Exit status of a worker that would fail again in the same way (EX_CONFIG of sysexits.h).
EXIT_CONFIG = 78
#: A worker that lived so long is restarted at once, s.
_STABLE_S = 10.0
_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 10.0
#: Starts that fail in a row, before any worker has ever served, until we give up.
_MAX_FIRST_FAILURES = 3
#: Threads of one engine beyond which a single image gains nothing.
_MOST_WIDE = 8
#: Beyond the grace period, until a worker that does not end is killed, s.
_KILL_AFTER_S = 5.0


class StartError(Exception):
    """The server cannot start; str() says why and what to do."""


def choose_sizes(settings: Settings, cpus: float) -> Settings:
    """Fill in what was left to us: workers, and the threads of each.

    On CPU one worker for each CPU, each with one engine thread: two processes share the work of
    the front, which one cannot (the GIL), and small batches lose more by waking a second thread
    than it computes (docs/performance.md). Fewer workers get more threads each, which suits a lone
    caller of large batches: its one connection is with one worker. On CUDA the engine needs no
    CPU, but every worker has its own copy of the models on the device: one for four CPUs.
    """
    share = 4 if settings.device != "cpu" and has_cuda_package() else 1
    workers = settings.workers or max(1, int(cpus) // share)
    threads = max(1, int(cpus) // workers)
    return dataclasses.replace(
        settings,
        workers=workers,
        engine_threads=settings.engine_threads or threads,
        decode_threads=settings.decode_threads or threads,
    )


def choose_wide(settings: Settings, cpus: float) -> int:
    """The threads that an engine may use while the other workers' engines are idle.

    Args:
        settings: as given: engine threads that a user has chosen are never exceeded.
        cpus: that we may use, quotas counted.
    """
    return settings.engine_threads or max(1, min(_MOST_WIDE, int(cpus)))


def choose_cpus(settings: Settings, cpus: float, affinity: Sequence[int]) -> list[int]:
    """The CPU that each worker is kept on; none if the system is to move them about.

    Most of a call's time is threads of one process waking each other; on one CPU that is a switch,
    between two an interrupt (docs/performance.md). With a quota, or more CPUs than workers, other
    processes would choose the same CPUs while others idle, so then we do not.

    Args:
        settings: with sizes chosen.
        cpus: that we may use, quotas counted.
        affinity: the CPUs that we may run on.
    """
    one_each = settings.workers == len(affinity) == cpus and settings.engine_threads == 1
    return sorted(affinity) if settings.pin == "auto" and one_each else []


def has_cuda_package() -> bool:
    """Whether ONNX Runtime for CUDA is installed; importing it here would cost too much."""
    try:
        metadata.distribution("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return False
    return True


def reserve_port(host: str, port: int) -> socket.socket:
    """A socket that holds the port for our workers, and does not listen.

    Raises:
        StartError: if the port is taken or the address is not ours.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Another server that shares ports would let us join it in silence: ask without sharing.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            place = probe.getsockname()
        holder = socket.socket(family, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(place)
        except OSError:
            holder.close()
            raise
    except OSError as error:
        raise StartError(
            f"cannot listen on {address(host, port)}: {error.strerror}; "
            "choose another with --host and --port (0 takes a free one)"
        ) from error
    return holder


@dataclass
class _Slot:
    """A place for one worker, and what became of those that were in it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    #: Readable with a byte when the worker serves, at its end when the worker is gone.
    ready_fd: int = -1
    started: float = 0.0
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
    """

    def __init__(self, settings: Settings, cpus: Sequence[int] = (), wide_threads: int = 1) -> None:
        self._wide_threads = wide_threads
        self._settings = settings
        self._cpus = cpus
        self._slots = [_Slot(number) for number in range(1, settings.workers + 1)]
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._announced = False
        self._port = 0
        self._temporary = ""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; a second one kills.

        Returns: the exit status, 0 after a clean drain.

        Raises:
            StartError: if the port cannot be had.
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
                if self._hopeless():
                    self._end(kill=True)
                    return 1
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
            env=os.environ | {"TMPDIR": self._temporary},
        )
        os.close(writer)
        if self._cpus:
            # It has one thread yet; those that it starts inherit this. If it is gone already, the
            # end of its pipe tells.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(slot.process.pid, {self._cpus[slot.number - 1]})
        slot.ready_fd, slot.started, slot.ready = reader, time.monotonic(), False
        self._selector.register(reader, selectors.EVENT_READ, slot)

    def _place(self, slot: _Slot) -> dict[str, object]:
        """What a worker is told of itself among the others."""
        return {
            "number": slot.number,
            "engines": str(self._engines()),
            "threads": self._wide_threads,
            "cpus": list(self._cpus),
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
            elif os.read(key.fd, 1):
                self._on_ready(key.data)
            else:
                self._on_exit(key.data)

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
        if self._signals:
            if status:
                log.error("worker %d ended with status %d", slot.number, status)
            return
        lived = time.monotonic() - slot.started
        slot.failures = 0 if lived >= _STABLE_S else slot.failures + 1
        if status == EXIT_CONFIG:
            slot.failures = _MAX_FIRST_FAILURES
        delay = (
            min(_LAST_DELAY_S, _FIRST_DELAY_S * 2 ** (slot.failures - 1)) if slot.failures else 0
        )
        slot.due = time.monotonic() + delay
        log.error(
            "worker %d ended with status %d after %.1f s; starting it again in %.1f s",
            slot.number, status, lived, delay,
        )  # fmt: skip

    def _hopeless(self) -> bool:
        """Whether the server does not even start; later on, it is never given up."""
        return not self._announced and any(
            slot.process is None and slot.failures >= _MAX_FIRST_FAILURES for slot in self._slots
        )

    def _drain(self) -> int:
        log.info("%s: stopping", signal.Signals(self._signals[0]).name)
        self._end(kill=False)
        end = time.monotonic() + self._settings.grace_s + _KILL_AFTER_S
        forced = False
        while self._running():
            for key, _ in self._selector.select(max(0.0, end - time.monotonic())):
                if key.data is None:
                    self._wakeup[0].recv(4096)
                elif not os.read(key.fd, 1):
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
    cpus = available_cpus()
    sized = choose_sizes(settings, cpus)
    pinned = choose_cpus(sized, cpus, available_set())
    log.info(
        "%g CPUs, workers kept on %s; settings: %s",
        cpus, pinned or "any", json.dumps(dataclasses.asdict(sized)),
    )  # fmt: skip
    return Supervisor(sized, pinned, choose_wide(settings, cpus)).run()
