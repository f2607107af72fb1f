"""A guard on a thread, before a worker in this process."""

import asyncio
import socket
import ssl
import threading
from typing import Any

from convserve_server.process.guard import guard_options
from convserve_server.process.worker_spec import GuardSpec
from convserve_server.settings.settings import Settings
from convserve_server.telemetry.shared_statistics import SharedStatistics
from convserve_server.transports.guard.guard import Guard, new_event_loop


class GuardThread:
    """Listens on a free port of 127.0.0.1.

    Args:
        settings: with sizes chosen.
        field: that the worker expects.
        worker: port of the worker.
        context: of TLS; None: none.
    """

    def __init__(
        self, settings: Settings, field: str, worker: int, context: ssl.SSLContext | None = None
    ) -> None:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
            spec = GuardSpec(
                port=self.port,
                guards=1,
                field=field,
                settings=settings,
                statistics=-1,
                statistics_slot=0,
            )
            #: What it counts.
            self.counted = SharedStatistics()
            self._started = threading.Event()
            self._stop: asyncio.Event
            self._loop: asyncio.AbstractEventLoop
            self.guard: Guard
            self._thread = threading.Thread(target=self._run, args=(spec, worker, context))
            self._thread.start()
            assert self._started.wait(60.0)

    def _run(self, *arguments: Any) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(self._serve(*arguments))

    async def _serve(self, spec: GuardSpec, worker: int, context: ssl.SSLContext | None) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self.guard = Guard(guard_options(spec), context, self.counted)
        self.guard.set_workers([worker])
        self._started.set()
        await self._stop.wait()
        await self.guard.drain(0.0, 0.0)

    def call(self, do: Any, *arguments: Any) -> None:
        """Calls a function on the guard's event loop, soon."""
        self._loop.call_soon_threadsafe(do, *arguments)

    def close(self) -> None:
        """Ends all connections."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
