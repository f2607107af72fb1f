"""The seam between HTTP/2 and the server: calls come in as bytes, answers leave by call id.

Behind it nothing knows which front it has, or that there is such a thing as gRPC: a front hands
over events, on a thread of its own, and takes answers from any thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from convserve_server.errors import ServeError

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who calls."""

    #: Address of the caller, as "ipv4:127.0.0.1:51234".
    peer: str
    metadata: Metadata


class Call(NamedTuple):
    """A unary call with its whole request."""

    #: Names the call when it is answered; unique in this front.
    id: int
    #: "/package.Service/Method".
    method: str
    payload: bytes
    #: time.monotonic() at which the caller stops waiting; None: never.
    deadline: float | None
    #: Whose connection it came by; no more than a name, the same for all calls of a connection.
    caller: str
    #: Asks the front who calls, while the call is there; asking costs time, so only where needed.
    origin: Callable[[], Origin]
    #: No other call is open: short work may be done on the front's thread, which has nothing else.
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Cancellation:
    """The caller of a call went away, or its deadline passed; an answer would reach nobody."""

    id: int


Event = Call | Cancellation

#: Calls at a time on one connection; clients hold back the others once they know. No smaller where
#: memory is: one that has just ended may still count, and its successor is refused (gRPC's own
#: clients try again, others do not).
MAX_STREAMS = 4096
#: Takes events in the order in which they came; must not block.
Handler = Callable[[Sequence[Event]], None]


@dataclass(frozen=True)
class FrontOptions:
    """What every front honours."""

    host: str
    port: int
    #: Paths of the unary methods that the handler takes.
    methods: tuple[str, ...]
    #: Services that reflection describes.
    services: tuple[str, ...]
    max_message_bytes: int
    #: That all streams may hold together: requests without an answer, answers that are not read.
    max_stream_bytes: int
    keepalive_s: int
    #: Age at which connections are closed, once their calls are answered, s; 0: never.
    max_connection_age_s: float
    #: Share the port with other processes.
    reuse_port: bool


class Front(Protocol):
    """Where calls enter and answers leave. Also serves health and reflection."""

    name: str

    def start(self, handler: Handler) -> int:
        """Listen, and hand events to the handler from now on.

        Returns: the port.

        Raises:
            OSError: if the address cannot be bound.
        """

    def respond(self, call_id: int, payload: bytes) -> None:
        """Answer a call; nothing happens if it is no longer there."""

    def fail(self, call_id: int, error: ServeError) -> None:
        """Answer a call with an error; nothing happens if it is no longer there."""

    def set_health(self, service: str, serving: bool | None) -> None:
        """What grpc.health.v1 says of a service; None: nothing is known of it (any more)."""

    def drain(self) -> None:
        """Turn health to NOT_SERVING, and end streams when what is in flight on them is answered.

        Calls still come in, for the handler to refuse.
        """

    def flush(self, timeout_s: float) -> None:
        """Wait, at most so long, until every answer is sent."""

    def close(self) -> None:
        """Close all connections. A call that comes in meanwhile may end in any error."""
