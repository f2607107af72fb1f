"""A process between clients on a network and the workers of the native front.

    python -m convserve_server.process.guard SOCKET

SOCKET is the number of a stream socket to the supervisor, whose first message is the GuardSpec; see
process/messages.py. Its end, or SIGTERM, says that the guard should stop.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from convserve_server.host.shared_memory import shared
from convserve_server.logs import configure_logging
from convserve_server.process.link import SupervisorLink
from convserve_server.process.messages import (
    EXIT_CONFIG,
    CannotStart,
    Ready,
    SetLogLevel,
    WorkerPorts,
    one_line,
)
from convserve_server.process.tls_settings import tls_files
from convserve_server.process.worker_spec import GuardSpec, decode_guard, receive_line
from convserve_server.security.file_watch import FileWatch
from convserve_server.security.tls import server_context
from convserve_server.telemetry.shared_statistics import SharedStatistics
from convserve_server.transports.guard.guard import Guard, GuardOptions, new_event_loop

log = logging.getLogger(__name__)

#: Beyond the grace period of the workers, for what they have sent last, s.
_LAST_S = 1.0


def guard_options(spec: GuardSpec) -> GuardOptions:
    """Returns what one of the guards honours: its part of what is for all."""
    settings = spec.settings
    limits, workers = settings.limits, settings.process.workers
    return GuardOptions(
        host=settings.listen.host,
        port=spec.port,
        field=spec.field,
        max_message_bytes=limits.max_message_bytes,
        max_received_bytes=limits.max_received_bytes * workers // spec.guards,
        max_connection_bytes=limits.max_connection_bytes,
        max_connections=-(-limits.max_connections * workers // spec.guards),
        max_connection_age_s=settings.listen.max_connection_age_s,
    )


class GuardProcess:
    """Runs a guard until asked to stop.

    Args:
        spec: Of this guard.
        link: To the supervisor.
    """

    def __init__(self, spec: GuardSpec, link: SupervisorLink) -> None:
        self._spec = spec
        self._link = link
        self._files = tls_files(spec.settings)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._guard: Guard
        self._failure = 0

    async def run(self) -> int:
        """Returns the exit status."""
        self._loop = loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        try:
            context = server_context(self._files, ["h2"]) if self._files else None
        except (OSError, ValueError) as error:
            self._link.send(CannotStart(one_line(error)))
            return EXIT_CONFIG
        counted = SharedStatistics(shared(self._spec.statistics), self._spec.statistics_slot)
        self._guard = Guard(guard_options(self._spec), context, counted)
        watch = FileWatch(self._files.paths, self._renew) if self._files else None
        if watch is not None:
            watch.start()

        def soon(do: Callable[..., None]) -> Callable[[object], None]:
            def call(message: object) -> None:
                loop.call_soon_threadsafe(do, message)

            return call

        self._link.on(WorkerPorts, soon(self._on_ports))
        self._link.on(SetLogLevel, soon(_set_level))
        self._link.used = self._wait_for_loop
        self._link.start(self._spec.settings.process.heartbeat_s)
        await self._stop.wait()
        if self._failure:
            return self._failure
        process = self._spec.settings.process
        left = await self._guard.drain(process.lame_duck_s, process.grace_s + _LAST_S)
        if left:
            log.warning("%d connections were aborted", left)
        return 0

    def _renew(self) -> None:
        assert self._files is not None
        self._guard.context = server_context(self._files, ["h2"])

    def _wait_for_loop(self) -> tuple[str, ...]:
        """Returns when the event loop has done something: one that hangs sends no heartbeat."""
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()
        return ()

    def on_end(self) -> None:
        """Stops, since the supervisor is gone; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def _on_ports(self, message: WorkerPorts) -> None:
        listened = self._guard.listens
        try:
            self._guard.set_workers(message.ports)
        except OSError as error:
            self._link.send(CannotStart(one_line(error)))
            self._failure = 1
            self._stop.set()
            return
        if self._guard.listens and not listened:
            self._link.send(Ready())


def _set_level(message: SetLogLevel) -> None:
    logging.getLogger().setLevel(message.level.upper())


def main() -> None:
    """Runs the process; its entry point."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        spec = decode_guard(receive_line(connection))
    except (EOFError, OSError):
        sys.exit(1)
    log_settings = spec.settings.log
    configure_logging(log_settings.log_level, log_settings.log_format)
    # These reach the whole group; the supervisor decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        process = GuardProcess(spec, SupervisorLink(connection, lambda: process.on_end()))
        status = runner.run(process.run())
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    main()
