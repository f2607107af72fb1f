"""From a gRPC status, however it came, to the exception that the caller sees.

Source: google.rpc.Status and google/rpc/error_details.proto (AIP-193, errors); the trailer
grpc-status-details-bin carries the former.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from convserve.deadline import Deadline
from convserve.errors import (
    BadImage,
    Cancelled,
    CannotMeetDeadline,
    ConvserveError,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    MessageTooLarge,
    ModelNotFound,
    NotSupported,
    PermissionDenied,
    ServerBusy,
    ServerFault,
    ServerUnavailable,
    Unauthenticated,
)
from convserve.tls import Tls
from convserve.tls_failures import HandshakeFailed, cause_in, is_vague, tls_error
from convserve.unreachable import cannot_connect, route

DETAILS_KEY = "grpc-status-details-bin"

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_PLAIN: dict[grpc.StatusCode, type[ConvserveError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
}

# Of the server's reasons in google.rpc.ErrorInfo.
_DOMAIN = "convserve"

# A server that gives no reason, such as gRPC itself, has one code for a message over its limit and
# for everything else of which there is not enough. Servers of gRPC accept 4 MiB unless they were
# given another limit: what is smaller was hardly too large.
_SURELY_ACCEPTED_BYTES = 4 * 2**20

_INVALID = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
}

# What grpc says when no address of a name can be reached, before a line of addresses and causes.
# Only the words of the message depend on it.
_NO_CONNECTION = re.compile("connections to all backends failing|failed to connect to all")

# The status that grpc's asyncio client makes, without anything from the server, where a message
# could not be sent since the call had ended; the server's own status then comes too late for it.
_ENDED_MEANWHILE = "Internal error from Core"

_Detail = TypeVar("_Detail", bound=Message)


def error_from_status(
    status: status_pb2.Status, sent_bytes: Callable[[], int] = lambda: 0
) -> ConvserveError:
    """Returns the exception for a status, by its code and details alone.

    Args:
        status: Of a call, of one image in a reply, or of one answer on a stream.
        sent_bytes: Returns the size of the message that it answers.
    """
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    message = status.message or f"the server answered {code.name} and gave no reason"
    retry = _detail(status, error_details_pb2.RetryInfo)
    retry_after_s = retry.retry_delay.ToTimedelta().total_seconds() if retry else None
    info = _error_info(status)
    if code in _INVALID:
        violations = _violations(status)
        # Reasons of INVALID_ARGUMENT are those of images that cannot be used.
        if not info.reason or code is not grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(message, code=code, violations=violations)
        # The field counts the images of one call, of which the caller knows nothing: left out.
        why = violations[0].description if violations else message
        return BadImage(why, reason=info.reason.lower().replace("_", "-"), code=code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if info.reason == "MESSAGE_TOO_LARGE":
            limit = info.metadata.get("limit_bytes", "")
            limit_bytes = int(limit) if limit.isdecimal() else None
            return MessageTooLarge(message, code=code, limit_bytes=limit_bytes)
        if info.reason == "CANNOT_MEET_DEADLINE":
            return CannotMeetDeadline(message, code=code, retry_after_s=retry_after_s)
        if not info.reason and retry is None and sent_bytes() > _SURELY_ACCEPTED_BYTES:
            return MessageTooLarge(message, code=code)
        return ServerBusy(message, code=code, retry_after_s=retry_after_s)
    if plain := _PLAIN.get(code):
        return plain(message, code=code, retry_after_s=retry_after_s)
    return ServerFault(message, code=code, fault_id=info.metadata.get("fault_id"))


def error_from_rpc(
    error: grpc.RpcError,
    server: str,
    deadline: Deadline,
    sent_bytes: Callable[[], int] = lambda: 0,
    tls: Tls | None = None,
) -> ConvserveError:
    """Returns the exception for a call that failed.

    Args:
        error: As raised by either of grpc's two clients.
        server: Where the call went, for the message.
        deadline: That of the call, for the message.
        sent_bytes: Returns the size of the largest message that was sent.
        tls: How the client speaks TLS.
    """
    status = _status(error)
    code = _CODES.get(status.code)
    if code is grpc.StatusCode.UNAVAILABLE and _NO_CONNECTION.match(status.message):
        text = status.message
        if tls is not None and (cause := cause_in(text)) is not None:
            refused = tls_error(server, cause, text, tls)
            refused.code = code
            return refused
        status.message = cannot_connect(server, text.rsplit(": ", 1)[-1])
        if is_vague(text):
            return HandshakeFailed(error_from_status(status), deadline)
    elif code is grpc.StatusCode.UNAVAILABLE:
        status.message = f"{route(server)}: {status.message}"
    elif code is grpc.StatusCode.INTERNAL and status.message == _ENDED_MEANWHILE:
        status.code = grpc.StatusCode.UNAVAILABLE.value[0]
        status.message = f"{server}: ended the call while a message was sent to it; why is lost"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        # The server's own words say more than grpc's, which are only the name of the code.
        reason = "" if status.message == "Deadline Exceeded" else f": {status.message}"
        status.message = f"no answer from {route(server)} within {deadline.timeout_s:g} s{reason}"
    return error_from_status(status, sent_bytes)


@contextmanager
def translated(
    server: str, deadline: Deadline, sent_bytes: Callable[[], int], tls: Tls | None = None
) -> Iterator[None]:
    """Raises an exception of ours for one of grpc's, which becomes its __cause__.

    Args:
        server: As for error_from_rpc.
        deadline: As for error_from_rpc.
        sent_bytes: As for error_from_rpc.
        tls: As for error_from_rpc.

    Raises:
        ConvserveError: The call inside failed.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, server, deadline, sent_bytes, tls) from error
    except grpc.FutureCancelledError as error:
        raise Cancelled("the call was cancelled", code=grpc.StatusCode.CANCELLED) from error


def _status(error: grpc.RpcError) -> status_pb2.Status:
    # Both clients give pairs, whatever else the types of grpc's stubs say.
    trailers = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    code = error.code().value[0]
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except DecodeError:
                break  # Details that cannot be read must not hide the error itself.
            # A proxy may have replaced the status on its way; what gRPC says is what counts.
            if status.code == code:
                return status
    return status_pb2.Status(code=code, message=error.details() or "")


def _error_info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """Returns the server's own reason; an empty one for none, or for that of another program."""
    info = _detail(status, error_details_pb2.ErrorInfo)
    return info if info and info.domain == _DOMAIN else error_details_pb2.ErrorInfo()


def _violations(status: status_pb2.Status) -> tuple[FieldViolation, ...]:
    bad = _detail(status, error_details_pb2.BadRequest)
    if bad is None:
        return ()
    return tuple(FieldViolation(each.field, each.description) for each in bad.field_violations)


def _detail(status: status_pb2.Status, kind: type[_Detail]) -> _Detail | None:
    message = kind()
    return message if any(detail.Unpack(message) for detail in status.details) else None
