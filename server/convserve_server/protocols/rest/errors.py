"""What HTTP makes of errors: one table from gRPC's codes, and one JSON object for all of them.

    {"error": "pixels.height: expected 28 for model mnist, got 27", "reason": "INVALID_REQUEST",
     "field": "pixels.height", "expected": "28 for model mnist", "got": "27"}

An error after whose time the request may succeed has retry_after_s, and the header Retry-After.

Source: https://connectrpc.com/docs/protocol/#error-codes (statuses and names).
"""

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from google.rpc import code_pb2, error_details_pb2, status_pb2

from convserve_server.core.errors import (
    AnswerTooLarge,
    InternalFault,
    MessageTooLarge,
    fitting,
)
from convserve_server.protocols.base import Failure
from convserve_server.protocols.grpc_errors import failure_status, to_failure
from convserve_server.protocols.rest.messages import Fields, HttpAnswer, Problem


class _Code(NamedTuple):
    status: int
    name: str


#: Status of HTTP and name in Connect by the code of google/rpc/code.proto.
CODES = {
    code_pb2.CANCELLED: _Code(499, "canceled"),
    code_pb2.UNKNOWN: _Code(500, "unknown"),
    code_pb2.INVALID_ARGUMENT: _Code(400, "invalid_argument"),
    code_pb2.DEADLINE_EXCEEDED: _Code(504, "deadline_exceeded"),
    code_pb2.NOT_FOUND: _Code(404, "not_found"),
    code_pb2.ALREADY_EXISTS: _Code(409, "already_exists"),
    code_pb2.PERMISSION_DENIED: _Code(403, "permission_denied"),
    code_pb2.RESOURCE_EXHAUSTED: _Code(429, "resource_exhausted"),
    code_pb2.FAILED_PRECONDITION: _Code(400, "failed_precondition"),
    code_pb2.ABORTED: _Code(409, "aborted"),
    code_pb2.OUT_OF_RANGE: _Code(400, "out_of_range"),
    code_pb2.UNIMPLEMENTED: _Code(501, "unimplemented"),
    code_pb2.INTERNAL: _Code(500, "internal"),
    code_pb2.UNAVAILABLE: _Code(503, "unavailable"),
    code_pb2.DATA_LOSS: _Code(500, "data_loss"),
    code_pb2.UNAUTHENTICATED: _Code(401, "unauthenticated"),
}

_PATTERN = re.compile(r"(?:(?P<field>[^\s:]+): )?expected (?P<expected>.+), got (?P<got>.+)", re.S)

#: What is expected where the text of an error says only what there is.
_A_FILE = "a whole picture file of a format that the model reads"
_NOT_ONE_DIGIT = frozenset({"BLANK", "NO_DIGIT", "SEVERAL"})

#: Changes a text that names a field of a message into one that names what the request has.
Rename = Callable[[str], str]


#: Retrying is pointless, unlike after 429.
_TOO_LARGE = frozenset({MessageTooLarge.reason, AnswerTooLarge.reason})


def unchanged(text: str) -> str:
    """Returns a text."""
    return text


def code_of(code: int) -> _Code:
    """Returns what HTTP and Connect call a code; one that is not of gRPC is unknown."""
    return CODES.get(code, CODES[code_pb2.UNKNOWN])


def status_of(failure: Failure) -> int:
    """Returns the status of HTTP for a failure."""
    return 413 if failure.reason in _TOO_LARGE else code_of(failure.code).status


@lru_cache(maxsize=1024)
def failure_answer(failure: Failure, rename: Rename = unchanged) -> HttpAnswer:
    """Returns the answer for a failure; kept, since under overload they are many and alike.

    Args:
        failure: of a call.
        rename: see Rename.
    """
    described = describe(failure_status(failure), rename)
    if failure.reason:
        described["reason"] = failure.reason
    headers = headers_of(failure)
    return HttpAnswer(status_of(failure), msgspec.json.encode(described), headers=headers)


def problem_answer(problem: Problem) -> HttpAnswer:
    """Returns the answer to a request that is wrong as HTTP."""
    message = fitting(str(problem))
    described: dict[str, Any] = {"error": message, "reason": problem.reason}
    described |= _parts(message)
    if problem.retry_after_s is not None:
        described["retry_after_s"] = problem.retry_after_s
    headers = problem.headers + retry_after(described)
    return HttpAnswer(problem.status, msgspec.json.encode(described), headers=headers)


def fault_answer(what: str, error: BaseException) -> HttpAnswer:
    """Returns the answer after a fault of ours, which is logged under the id that it names.

    Args:
        what: failed.
        error: why.
    """
    return failure_answer(to_failure(InternalFault(what, error)))


def describe(status: status_pb2.Status, rename: Rename = unchanged) -> dict[str, Any]:
    """Returns the JSON object of an error, without what is not known of it.

    Args:
        status: with code, message and details.
        rename: see Rename.
    """
    message = rename(status.message)
    described: dict[str, Any] = {"error": message, "reason": code_pb2.Code.Name(status.code)}
    described |= _parts(message)
    for detail in status.details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            for violation in _unpacked(detail, error_details_pb2.BadRequest()).field_violations:
                described["field"] = rename(violation.field)
                described["reason"] = "INVALID_REQUEST"
                if "got" not in described:
                    described |= {"expected": _A_FILE, "got": violation.description}
        elif detail.Is(error_details_pb2.ResourceInfo.DESCRIPTOR):
            resource = _unpacked(detail, error_details_pb2.ResourceInfo())
            described["field"] = resource.resource_type
            described["expected"] = message.partition("; ")[2] or "one that is served"
            # Of a version with the name of its model before it.
            described["got"] = resource.resource_name.rpartition("/")[2]
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            described["reason"] = reason = _unpacked(detail, error_details_pb2.ErrorInfo()).reason
            if reason in _NOT_ONE_DIGIT:
                described["expected"] = "a picture of one digit"
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = _unpacked(detail, error_details_pb2.RetryInfo())
            described["retry_after_s"] = retry.retry_delay.ToTimedelta().total_seconds()
    return described


def headers_of(failure: Failure) -> Fields:
    """Returns the headers of an error: how to be allowed, or when to retry.

    Source: RFC 6750, section 3; RFC 9110, section 10.2.3.
    """
    if failure.code == code_pb2.UNAUTHENTICATED:
        return (("www-authenticate", "Bearer"),)
    seconds = [
        _unpacked(detail, error_details_pb2.RetryInfo()).retry_delay.ToTimedelta().total_seconds()
        for detail in failure_status(failure).details
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    ]
    return retry_after({"retry_after_s": seconds[0]}) if seconds else ()


def retry_after(described: dict[str, Any]) -> Fields:
    """Returns the header of an error after whose time the request may succeed, in whole seconds."""
    seconds = described.get("retry_after_s")
    return () if seconds is None else (("retry-after", str(max(1, math.ceil(seconds)))),)


def _parts(message: str) -> dict[str, str]:
    found = _PATTERN.fullmatch(message)
    return {} if found is None else {k: v for k, v in found.groupdict().items() if v}


def _unpacked(detail: Any, message: Any) -> Any:
    detail.Unpack(message)
    return message
