"""From a gRPC status, however it came, to the exception that the caller sees.

Source: google.rpc.Status and google/rpc/error_details.proto (AIP-193, errors); the trailer
grpc-status-details-bin carries the former.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from convserve.deadline import Deadline
from convserve.errors import (
    BadImage,
    Cancelled,
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

# What distinguishes an image that cannot be used from any other invalid request.
_DOMAIN = "convserve"

_INVALID = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
}

# classifier.proto: "INTERNAL carries an id in its message that is in the server's log".
_FAULT_ID = re.compile(r"\bid ([0-9a-f]{8,})\b")

# What grpc says when no address of a name can be reached, before a line of addresses and causes.
_NO_CONNECTION = re.compile("connections to all backends failing|failed to connect to all")

# What grpc's asyncio client says where a message could not be sent since the call had ended; the
# server's own status then comes too late for it.
_ENDED_MEANWHILE = "Internal error from Core"

_Detail = TypeVar("_Detail", bound=Message)


def error_from_status(status: status_pb2.Status) -> ConvserveError:
    """Returns the exception for a status that came inside a reply: of one image or on a stream."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    message = status.message or f"the server answered {code.name} and gave no reason"
    retry = _detail(status, error_details_pb2.RetryInfo)
    retry_after_s = retry.retry_delay.ToTimedelta().total_seconds() if retry else None
    if code in _INVALID:
        info = _detail(status, error_details_pb2.ErrorInfo)
        violations = _violations(status)
        if info is None or info.domain != _DOMAIN:
            return InvalidRequest(message, code=code, violations=violations)
        # The field counts the images of one call, of which the caller knows nothing: left out.
        told = violations[0].description if violations else message
        return BadImage(told, reason=info.reason.lower().replace("_", "-"), code=code)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # A message over a limit has the code of a full queue, but no time at which it would do.
        kind = MessageTooLarge if retry is None and "larger than" in message else ServerBusy
        return kind(message, code=code, retry_after_s=retry_after_s)
    if plain := _PLAIN.get(code):
        return plain(message, code=code, retry_after_s=retry_after_s)
    fault = _FAULT_ID.search(message)
    return ServerFault(message, code=code, fault_id=fault.group(1) if fault else None)


def error_from_rpc(error: grpc.RpcError, server: str, deadline: Deadline) -> ConvserveError:
    """Returns the exception for a call that failed.

    Args:
        error: As raised by either of grpc's two clients.
        server: Where the call went, for the message.
        deadline: That of the call, for the message.
    """
    status = _status(error)
    code = _CODES.get(status.code)
    if code is grpc.StatusCode.UNAVAILABLE and _NO_CONNECTION.match(status.message):
        status.message = cannot_connect(server, status.message.rsplit(": ", 1)[-1])
    elif code is grpc.StatusCode.UNAVAILABLE:
        status.message = f"{route(server)}: {status.message}"
    elif code is grpc.StatusCode.INTERNAL and status.message == _ENDED_MEANWHILE:
        status.code = grpc.StatusCode.UNAVAILABLE.value[0]
        status.message = f"{server}: ended the call while a message was sent to it; why is lost"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        # The server's own words say more than grpc's, which are only the name of the code.
        reason = "" if status.message == "Deadline Exceeded" else f": {status.message}"
        status.message = f"no answer from {route(server)} within {deadline.timeout_s:g} s{reason}"
    return error_from_status(status)


def bad_image(error: grpc.RpcError, server: str, deadline: Deadline) -> BadImage:
    """Returns what is wrong with the only image of one call among several of a request.

    Such a call fails as a whole, which shall not fail the images of the other calls.

    Raises:
        RpcError: The call failed for another reason; the error itself.
    """
    found = error_from_rpc(error, server, deadline)
    if isinstance(found, BadImage):
        found.__cause__ = error
        return found
    raise error


@contextmanager
def translated(server: str, deadline: Deadline) -> Iterator[None]:
    """Raises an exception of ours for one of grpc's, which becomes its __cause__.

    Raises:
        ConvserveError: The call inside failed.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, server, deadline) from error
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
                break  # Details that cannot be read are no reason to hide the error itself.
            # A proxy may have replaced the status on its way; what gRPC says is what counts.
            if status.code == code:
                return status
    return status_pb2.Status(code=code, message=error.details() or "")


def _violations(status: status_pb2.Status) -> tuple[FieldViolation, ...]:
    bad = _detail(status, error_details_pb2.BadRequest)
    if bad is None:
        return ()
    return tuple(FieldViolation(each.field, each.description) for each in bad.field_violations)


def _detail(status: status_pb2.Status, kind: type[_Detail]) -> _Detail | None:
    message = kind()
    return message if any(detail.Unpack(message) for detail in status.details) else None
