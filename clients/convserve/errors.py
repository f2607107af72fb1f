"""Everything that the client raises; grpc.RpcError is never shown, only kept as __cause__.

ConvserveError
├── InvalidRequest      wrong pixels, field or option; noticed here or by the server (a ValueError)
│   └── BadImage        an image that cannot be decoded, or that shows nothing
├── ModelNotFound       no such model or version is loaded (a LookupError)
├── MessageTooLarge     a request or a reply is over the limit of the server or of the client
├── ServerBusy          the queue is full or a rate limit is reached: try again later
│   └── CannotMeetDeadline  the queue is longer than the time that the call has left
├── ServerUnavailable   not reachable, not loaded yet, or shutting down: try again later
├── TlsFailed           no connection with TLS: a certificate that is not accepted, or no TLS
├── DeadlineExceeded    no answer in time (a TimeoutError)
├── Cancelled           the call was given up: by the server, or because the client was closed
├── Unauthenticated     no credentials, or wrong ones
├── PermissionDenied    the credentials do not allow this
├── NotSupported        the server does not know this call
├── ServerFault         a fault inside the server; has the id that is in its log
├── UnexpectedReply     the reply does not fit the request: client and server disagree
├── ClientClosed        the client was used after close()
├── ForkedProcess       gRPC was used before this process was forked, and does not outlive that
└── OtherEventLoop      the AsyncClient was used in another event loop before
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class ConvserveError(Exception):
    """What every error of this library is.

    Attributes:
        message: What went wrong, in one line.
        code: The gRPC status, or None if the error arose in this process.
        retry_after_s: Seconds after which the server says that another try is worth it, or None if
            it did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry_after_s = retry_after_s

    def extend(self, more: str) -> None:
        """Adds to the message."""
        self.message += more
        self.args = (self.message,)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that was refused.

    Attributes:
        field: Name of the field, as in the protocol: "pixels.height".
        description: What was expected, and what came.
    """

    field: str
    description: str


class InvalidRequest(ConvserveError, ValueError):
    """The request cannot be answered as it is; the same one will fail again.

    Attributes:
        violations: The fields at fault; empty if the server named none.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        retry_after_s: float | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)
        self.violations = violations

    @classmethod
    def of(cls, field: str, description: str) -> InvalidRequest:
        """Returns the error for one field, found before anything was sent."""
        return cls(f"{field}: {description}", violations=(FieldViolation(field, description),))

    @classmethod
    def expected(cls, field: str, expected: str, got: str) -> InvalidRequest:
        """Returns the error for one field that is not what it has to be."""
        return cls.of(field, f"expected {expected}, got {got}")


class BadImage(InvalidRequest):
    """An image cannot be used: it could not be decoded, or shows nothing.

    Attributes:
        reason: "not-a-picture", "unsupported", "truncated", "damaged", "too-large", "blank",
            "no-digit" or "several"; a newer server may have more.
    """

    def __init__(self, message: str, *, reason: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message, code=code)
        self.reason = reason


class ModelNotFound(ConvserveError, LookupError):
    """No such model or version is loaded; the message names those that are."""


class MessageTooLarge(ConvserveError):
    """A message is over a limit; send fewer images in one call.

    Attributes:
        limit_bytes: The limit, in bytes; None if the server did not name it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        retry_after_s: float | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)
        self.limit_bytes = limit_bytes


class ServerBusy(ConvserveError):
    """The server refused the call unprocessed because its queue is full or a limit is reached.

    Raised after the tries that retries.py allows; retry_after_s is what the server said last.
    """


class CannotMeetDeadline(ServerBusy):
    """The server refused the call unprocessed: what waits there takes longer than its deadline.

    It is not tried again: the same call would be refused again, or answered too late. A longer
    timeout helps, or less load; retry_after_s is when the server expects to have time for it.
    """


class ServerUnavailable(ConvserveError):
    """The server cannot be reached, has not loaded the model yet, or is shutting down."""


class TlsFailed(ConvserveError):
    """TLS was not agreed: the same call will fail again until somebody mends it.

    Attributes:
        reason: "expired", "not-yet-valid", "wrong-host" or "unknown-authority" of the server's
            certificate; "certificate-required" or "certificate-refused" of the client's; "no-tls"
            where the server speaks none, "tls-required" where it speaks nothing else; "other".
    """

    def __init__(
        self, message: str, *, reason: str = "other", code: grpc.StatusCode | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.reason = reason


class DeadlineExceeded(ConvserveError, TimeoutError):
    """No answer came within the timeout."""


class Cancelled(ConvserveError):
    """The call was given up before it was answered."""


class Unauthenticated(ConvserveError):
    """The server wants credentials, or other ones."""


class PermissionDenied(ConvserveError):
    """The credentials do not allow this."""


class NotSupported(ConvserveError):
    """The server does not know this call: another program, or an older version."""


class ServerFault(ConvserveError):
    """A fault inside the server, no fault of the request.

    Attributes:
        fault_id: Is in the server's log beside the traceback; None if the server gave none.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        retry_after_s: float | None = None,
        fault_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)
        self.fault_id = fault_id


class UnexpectedReply(ConvserveError):
    """The reply does not fit the request."""


class ClientClosed(ConvserveError):
    """The client was used after close()."""


class ForkedProcess(ConvserveError):
    """This process was forked from one that had used gRPC, which cannot be used here."""


class OtherEventLoop(ConvserveError):
    """The AsyncClient belongs to the event loop in which it was first used, and this is another."""
