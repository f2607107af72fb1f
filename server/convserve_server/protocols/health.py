"""grpc.health.v1.

grpcio-health-checking brings the messages and the client; its own servicers are not used: their
Watch never ends when the server stops, and holds a lock while it writes to its reader.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
import threading
from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2

from convserve_server.core.errors import InvalidRequest, ServeError, quoted
from convserve_server.protocols import grpc_errors
from convserve_server.protocols.base import Call, Failure, Stream, StreamHandler, UnaryHandler

SERVICE = "grpc.health.v1.Health"

#: Asked for by probes of whether to start the server again: SERVING as long as anything answers,
#: also without models and while the server leaves. In no list; no model can have this name.
LIVE = "/live"

#: As the protocol has it.
_MAX_LISTED = 100

_Status = health_pb2.HealthCheckResponse


class Health:
    """Statuses by service, for all transports. All methods may be called from any thread.

    Args:
        services: other than models, known to whoever may ask for health.
    """

    name = SERVICE

    def __init__(self, services: Iterable[str] = ("",)) -> None:
        self._services = frozenset([*services, LIVE])
        self._serving: dict[str, bool] = {}
        self._leaving = self._stopping = False
        self._lock = threading.Lock()
        # Those who watch, each on the event loop of its transport.
        self._watches: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def set(self, service: str, serving: bool | None) -> None:
        """Sets what is known of a service, None for nothing, and wakes those who watch."""
        with self._lock:
            if serving is None:
                self._serving.pop(service, None)
            else:
                self._serving[service] = serving
            self._wake()

    def leave(self) -> None:
        """Makes everything but LIVE NOT_SERVING from now on; watches get that and go on.

        They must not end yet: clients would begin them anew at once, again and again.
        """
        with self._lock:
            self._leaving = True
            self._wake()

    def drain(self) -> None:
        """Does as leave(), and ends watches."""
        with self._lock:
            self._stopping = True
            self._wake()

    def unary(self) -> Mapping[str, UnaryHandler]:
        """See Service.unary."""
        return {"Check": self._check, "List": self._list}

    def streams(self) -> Mapping[str, StreamHandler]:
        """See Service.streams."""
        return {"Watch": self._watch}

    def failure(self, error: ServeError) -> Failure:
        """See Service.failure."""
        return grpc_errors.to_failure(error)

    def _check(self, call: Call) -> None:
        """Answers with the status of a service; NOT_FOUND if nothing is known of it."""
        service = _parse(call.payload)
        with self._lock:
            status = self._status(service)
            known = status != _Status.SERVICE_UNKNOWN and self._is_seen(call, service)
        if known:
            call.reply(_Status(status=status).SerializeToString())
        else:
            call.fail(Failure(code_pb2.NOT_FOUND, f"unknown service {quoted(service)}"))

    def _list(self, call: Call) -> None:
        """Answers with the status of every known service; RESOURCE_EXHAUSTED if over 100."""
        with self._lock:
            statuses = {
                name: _Status(status=self._status(name))
                for name in self._serving
                if self._is_seen(call, name)
            }
        if len(statuses) > _MAX_LISTED:
            problem = f"services: expected at most {_MAX_LISTED} to list, got {len(statuses)}"
            call.fail(Failure(code_pb2.RESOURCE_EXHAUSTED, problem))
        else:
            call.reply(health_pb2.HealthListResponse(statuses=statuses).SerializeToString())

    async def _watch(self, stream: Stream) -> None:
        """Writes the status of a service, now and at every change."""
        service = _parse(await stream.read() or b"")
        last = None
        changed = asyncio.Event()
        watch = (stream.loop, changed)
        with self._lock:
            self._watches.add(watch)
        try:
            while True:
                # Cleared before the status is read, which may change while it is written.
                changed.clear()
                with self._lock:
                    status, stopping = self._status(service), self._stopping
                    if not self._is_seen(stream, service):
                        status = int(_Status.SERVICE_UNKNOWN)
                if status != last:
                    last = status
                    await stream.write(_Status(status=status).SerializeToString())
                if stopping:
                    # Not with an error: gRPC clients drop messages that an error overtakes.
                    return
                await changed.wait()
        finally:
            with self._lock:
                self._watches.discard(watch)

    def _is_seen(self, caller: Call | Stream, service: str) -> bool:
        """Returns whether a caller may know of a service, or a model. Called with the lock."""
        return service in self._services or caller.sees(service)

    def _status(self, service: str) -> int:
        """Returns the status of a service. Called with the lock."""
        known = self._serving.get(service)
        if service == LIVE:
            status = _Status.SERVING
        elif known is None:
            status = _Status.SERVICE_UNKNOWN
        elif known and not (self._leaving or self._stopping):
            status = _Status.SERVING
        else:
            status = _Status.NOT_SERVING
        return int(status)

    def _wake(self) -> None:
        """Wakes all who watch. Called with the lock."""
        for loop, changed in self._watches:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)


def _parse(payload: bytes) -> str:
    """Returns the service that is asked for."""
    request = health_pb2.HealthCheckRequest()
    try:
        request.ParseFromString(payload)
    except DecodeError as error:
        raise InvalidRequest(
            "request", f"expected a HealthCheckRequest, got {len(payload)} bytes that are not one"
        ) from error
    return str(request.service)
