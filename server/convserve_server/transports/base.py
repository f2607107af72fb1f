"""What every transport is, and what they share."""

from dataclasses import dataclass
from typing import Protocol

from convserve_server.protocols.router import Router
from convserve_server.security.tls import TlsFiles

#: Calls at a time on one connection; clients hold back the others once they know. No smaller where
#: memory is: one that has just ended may still count, and its successor is refused (gRPC's own
#: clients try again, others do not).
MAX_STREAMS = 4096

#: So many calls, each after the answer to the last, count as those of an only caller.
IDLE_CALLS_IN_A_ROW = 16


@dataclass(frozen=True)
class TransportOptions:
    """What every transport honours.

    Attributes:
        host: address to listen on.
        port: to listen on; 0 for a free one.
        max_message_bytes: of a message.
        keepalive_s: silence after which a connection is pinged.
        max_connection_age_s: at which connections are closed, once their calls are answered; 0:
            never.
        reuse_port: whether the port is shared with other processes.
        tls: the files of TLS; None: without.
    """

    host: str
    port: int
    max_message_bytes: int
    keepalive_s: int
    max_connection_age_s: float
    reuse_port: bool
    tls: TlsFiles | None = None


class Transport(Protocol):
    """Where calls come in and answers leave; health and reflection are services as any.

    Attributes:
        name: as in the settings.
    """

    name: str

    def start(self, router: Router) -> int:
        """Listens, and hands calls to the router from now on, on a thread of its own.

        Returns: the port.

        Raises:
            OSError: if the address cannot be bound.
        """

    def flush(self, timeout_s: float) -> None:
        """Waits, at most so long, until every answer is sent."""

    def close(self) -> None:
        """Closes all connections. A call that comes in meanwhile may end in any error."""


class IdleCallerDetector:
    """Finds out whether the calls that come in are those of an only caller, one after the other.

    Work that is done at once, on the transport's thread, hides calls that wait behind it. But then
    the answer to one is not sent yet when the next begins, and it still counts as open.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def next_call(self, *, others: bool) -> bool:
        """Returns whether a new call, and those before it, were the only ones.

        Args:
            others: whether others are open, or came with it.
        """
        self._in_a_row = 0 if others else self._in_a_row + 1
        return self._in_a_row >= IDLE_CALLS_IN_A_ROW
