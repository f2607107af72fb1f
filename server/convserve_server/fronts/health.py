"""grpc.health.v1, for a server on asyncio.

grpcio-health-checking brings the messages and the client; its own asyncio servicer is not used,
because its Watch never ends when the server stops, and holds a lock while it writes to its reader.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from convserve_server.errors import quoted
from convserve_server.fronts.writing import write

SERVICE = "grpc.health.v1.Health"

#: As the protocol has it.
_MOST_LISTED = 100

_Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Statuses by service. All methods run on the server's event loop."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    def set(self, service: str, serving: bool | None) -> None:
        """Set what is known of a service, None for nothing, and tell those who watch."""
        if serving is None:
            self._serving.pop(service, None)
        else:
            self._serving[service] = serving
        self._tell()

    def stop(self) -> None:
        """Everything is NOT_SERVING from now on; watches get that and then end."""
        self._stopping = True
        self._tell()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The status of a service; NOT_FOUND if nothing is known of it."""
        if request.service not in self._serving:
            problem = f"unknown service {quoted(request.service)}"
            await context.abort(grpc.StatusCode.NOT_FOUND, problem)
        return _Status(status=self._status(request.service))

    async def List(self, _: Any, context: Any) -> Any:  # noqa: N802
        """The status of every service that is known; RESOURCE_EXHAUSTED if they are over 100."""
        if len(self._serving) > _MOST_LISTED:
            problem = f"services: expected at most {_MOST_LISTED} to list, got {len(self._serving)}"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
        statuses = {name: _Status(status=self._status(name)) for name in self._serving}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """The status of a service, now and at every change."""
        last = None
        while True:
            # All read before the status is written, during which any of them may change.
            changed, stopping = self._changed, self._stopping
            status = self._status(request.service)
            if status != last:
                last = status
                await write(context, _Status(status=status))
            if stopping:
                # Not with an error: gRPC clients drop messages that an error overtakes.
                return
            await changed.wait()

    def _status(self, service: str) -> int:
        known = self._serving.get(service)
        if known is None:
            status = _Status.SERVICE_UNKNOWN
        elif known and not self._stopping:
            status = _Status.SERVING
        else:
            status = _Status.NOT_SERVING
        return int(status)

    def _tell(self) -> None:
        """Wake all who watch; each waits for the event that was current when it looked."""
        self._changed.set()
        self._changed = asyncio.Event()
