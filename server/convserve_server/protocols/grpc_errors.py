"""What gRPC protocols make of the core's errors: one table.

    InvalidRequest, BadImage  INVALID_ARGUMENT    BadRequest; of a file also ErrorInfo
    NotFound                  NOT_FOUND           ResourceInfo
    Unauthenticated           UNAUTHENTICATED     ErrorInfo
    PermissionDenied          PERMISSION_DENIED   ErrorInfo
    RateLimited               RESOURCE_EXHAUSTED  ErrorInfo, RetryInfo
    QuotaExceeded             RESOURCE_EXHAUSTED  ErrorInfo, RetryInfo
    FailedPrecondition        FAILED_PRECONDITION ErrorInfo
    NotReady                  UNAVAILABLE         ErrorInfo, RetryInfo
    Unimplemented             UNIMPLEMENTED
    QueueFull                 RESOURCE_EXHAUSTED  ErrorInfo, RetryInfo
    CannotMeetDeadline        RESOURCE_EXHAUSTED  ErrorInfo, RetryInfo: of a call with as much time
    MessageTooLarge           RESOURCE_EXHAUSTED  ErrorInfo
    AnswerTooLarge            RESOURCE_EXHAUSTED  ErrorInfo
    NoMemoryForRequest        RESOURCE_EXHAUSTED  ErrorInfo, RetryInfo
    RequestTooSlow            DEADLINE_EXCEEDED   ErrorInfo
    AnswersUnread             RESOURCE_EXHAUSTED  ErrorInfo
    DeadlinePassed            DEADLINE_EXCEEDED   ErrorInfo
    Cancelled                 CANCELLED
    InternalFault             INTERNAL            ErrorInfo

Source: google/rpc/code.proto, google/rpc/error_details.proto; retry push-back:
https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback.
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache

from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from convserve_server.core import errors
from convserve_server.core.errors import ServeError, fitting
from convserve_server.protocols.base import Failure

#: Header field with a call's google.rpc.Status.
_STATUS_FIELD = "grpc-status-details-bin"

#: Of our reasons in ErrorInfo.
DOMAIN = "convserve"

#: A retrying client reads from it when to try again, in ms; -1 for never.
PUSHBACK = "grpc-retry-pushback-ms"

_CODES: dict[type[ServeError], int] = {
    errors.InvalidRequest: code_pb2.INVALID_ARGUMENT,
    errors.NotFound: code_pb2.NOT_FOUND,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.PermissionDenied: code_pb2.PERMISSION_DENIED,
    errors.FailedPrecondition: code_pb2.FAILED_PRECONDITION,
    errors.NotReady: code_pb2.UNAVAILABLE,
    errors.Unimplemented: code_pb2.UNIMPLEMENTED,
    errors.RateLimited: code_pb2.RESOURCE_EXHAUSTED,
    errors.QueueFull: code_pb2.RESOURCE_EXHAUSTED,
    errors.MessageTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.NoMemoryForRequest: code_pb2.RESOURCE_EXHAUSTED,
    errors.RequestTooSlow: code_pb2.DEADLINE_EXCEEDED,
    errors.AnswersUnread: code_pb2.RESOURCE_EXHAUSTED,
    errors.DeadlinePassed: code_pb2.DEADLINE_EXCEEDED,
    errors.Cancelled: code_pb2.CANCELLED,
    errors.InternalFault: code_pb2.INTERNAL,
}

#: Errors whose status says all that a program may act on.
_PLAIN = frozenset(
    {
        errors.InvalidRequest,
        errors.NotFound,
        errors.NoModel,
        errors.Unimplemented,
        errors.Cancelled,
    }
)

#: Errors with which many calls end that are refused together, each made of its message alone, and
#: of the time after which to retry.
_REFUSALS = (errors.QueueFull, errors.RateLimited, errors.Unauthenticated)

#: Errors whose RetryInfo is of other calls, or far off: what clients repeat by themselves is lost.
_NOT_AGAIN = (errors.CannotMeetDeadline, errors.QuotaExceeded)


def to_code(error: ServeError) -> int:
    """Returns the status code of an error, of google/rpc/code.proto."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return int(code_pb2.UNKNOWN)


def to_status(error: ServeError) -> status_pb2.Status:
    """Returns the google.rpc.Status of an error: code, message and details, in texts that fit."""
    status = status_pb2.Status(code=to_code(error), message=fitting(str(error)))
    for detail in _details(error):
        _fit(detail)
        status.details.add().Pack(detail)
    return status


def to_failure(error: ServeError) -> Failure:
    """Returns an error as a call's status: details in trailing metadata, and when to retry."""
    if isinstance(error, _REFUSALS):
        # Classes are hashable, though mypy takes the method of their objects for theirs.
        return _refusal(type(error), str(error), error.retry_after_s)  # type: ignore[arg-type]
    return _made(error)


@lru_cache(maxsize=1024)
def _refusal(kind: type[ServeError], message: str, retry_after_s: float | None) -> Failure:
    """Returns a refusal as a call's status, made once: under overload they are many and alike."""
    if issubclass(kind, errors.Unauthenticated):
        return _made(kind(message))
    return _made(kind(message, retry_after_s))


def _made(error: ServeError) -> Failure:
    trailers: list[tuple[str, str | bytes]] = []
    status = to_status(error)
    if status.details:
        trailers.append((_STATUS_FIELD, status.SerializeToString()))
    # The same call has only less time later; RetryInfo says when a new one may have enough.
    again = not isinstance(error, _NOT_AGAIN)
    if again and error.retry_after_s is not None:
        trailers.append((PUSHBACK, str(round(error.retry_after_s * 1000))))
    elif status.code == code_pb2.RESOURCE_EXHAUSTED:
        trailers.append((PUSHBACK, "-1"))
    return Failure(status.code, status.message, tuple(trailers), error.reason)


def failure_status(failure: Failure) -> status_pb2.Status:
    """Returns the google.rpc.Status that a failure was made of."""
    for key, value in failure.trailers:
        if key == _STATUS_FIELD and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status(code=failure.code, message=failure.message)


def _details(error: ServeError) -> Iterator[Message]:
    """Yields the google.rpc messages that say more of an error, for programs."""
    if isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.problem
        )
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if isinstance(error, errors.NotFound):
        yield error_details_pb2.ResourceInfo(
            resource_type=error.kind, resource_name=error.name, description=str(error)
        )
    if type(error) not in _PLAIN:
        yield error_details_pb2.ErrorInfo(
            reason=error.reason, domain=DOMAIN, metadata=error.metadata
        )
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after_s))
        yield retry


def _fit(message: Message) -> None:
    """Cuts all texts of a message, and of those in it."""
    for field, value in message.ListFields():
        if isinstance(value, str):
            setattr(message, field.name, fitting(value))
        elif isinstance(value, Message):
            _fit(value)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value:
                _fit(each)
