import re
from collections.abc import Sequence

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

import convserve
from convserve import (
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
    errors,
)
from convserve.error_mapping import error_from_status
from convserve_protos import classifier_pb2
from tests.clients.conftest import Connect
from tests.clients.scripted_server import Failure, ScriptedServer

Digits = npt.NDArray[np.uint8]
Code = grpc.StatusCode

NO_RETRY = [("grpc-retry-pushback-ms", "-1")]


def retry_after(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(round(seconds * 1000))
    return info


def info(reason: str, domain: str = "convserve", **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


CASES: list[tuple[Code, str, Sequence[Message], type[ConvserveError], float | None]] = [
    (Code.INVALID_ARGUMENT, "pixels.height: is 20", [], InvalidRequest, None),
    (Code.OUT_OF_RANGE, "too far", [], InvalidRequest, None),
    (Code.FAILED_PRECONDITION, "not so", [], InvalidRequest, None),
    (Code.FAILED_PRECONDITION, "not served", [info("VERSION_REFUSED")], InvalidRequest, None),
    (Code.NOT_FOUND, "no model x; there is mnist", [], ModelNotFound, None),
    (Code.RESOURCE_EXHAUSTED, "the queue is full", [retry_after(0.25)], ServerBusy, 0.25),
    (Code.RESOURCE_EXHAUSTED, "rate limit", [], ServerBusy, None),
    (Code.RESOURCE_EXHAUSTED, "full", [info("QUEUE_FULL"), retry_after(2)], ServerBusy, 2),
    (Code.RESOURCE_EXHAUSTED, "late", [info("CANNOT_MEET_DEADLINE")], CannotMeetDeadline, None),
    (Code.RESOURCE_EXHAUSTED, "5 of 4 bytes", [info("MESSAGE_TOO_LARGE")], MessageTooLarge, None),
    (Code.RESOURCE_EXHAUSTED, "larger than max", [info("TOO_LARGE", "other")], ServerBusy, None),
    (Code.UNAVAILABLE, "loading", [retry_after(1.5)], ServerUnavailable, 1.5),
    (Code.DEADLINE_EXCEEDED, "nothing was computed", [], DeadlineExceeded, None),
    (Code.CANCELLED, "shutting down", [], Cancelled, None),
    (Code.UNAUTHENTICATED, "no token", [], Unauthenticated, None),
    (Code.PERMISSION_DENIED, "not allowed", [], PermissionDenied, None),
    (Code.UNIMPLEMENTED, "unknown method", [], NotSupported, None),
    (Code.INTERNAL, "engine failed", [], ServerFault, None),
    (Code.UNKNOWN, "who knows", [], ServerFault, None),
    (Code.DATA_LOSS, "lost", [], ServerFault, None),
    (Code.ABORTED, "aborted", [], ServerFault, None),
    (Code.ALREADY_EXISTS, "exists", [], ServerFault, None),
]
IDS = [f"{code.name}-{message}" for code, message, _, _, _ in CASES]


def test_every_status_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(Code) - {Code.OK}


@pytest.mark.parametrize(("code", "message", "details", "kind", "wait"), CASES, ids=IDS)
@pytest.mark.parametrize("count", [1, 5], ids=["one call", "split"])
def test_status_of_a_call_becomes_a_typed_error(
    connect: Connect,
    server: ScriptedServer,
    digits: Digits,
    code: Code,
    message: str,
    details: Sequence[Message],
    kind: type[ConvserveError],
    wait: float | None,
    count: int,
) -> None:
    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(code, message, details, NO_RETRY)

    server.answer = fail
    with pytest.raises(ConvserveError, match=re.escape(message)) as caught:
        connect(max_images_per_call=1, max_tries=1).classify(digits[:count])
    assert type(caught.value) is kind
    assert caught.value.code is code
    assert caught.value.retry_after_s == wait
    assert caught.value.message == str(caught.value)


@pytest.mark.parametrize(("code", "message", "details", "kind", "wait"), CASES, ids=IDS)
def test_status_inside_a_reply_becomes_the_same_error(
    code: Code,
    message: str,
    details: Sequence[Message],
    kind: type[ConvserveError],
    wait: float | None,
) -> None:
    error = error_from_status(Failure(code, message, details).status)
    assert type(error) is kind
    assert (error.code, error.message, error.retry_after_s) == (code, message, wait)


def test_message_that_meets_the_end_of_the_call_is_no_fault_of_the_server(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    """In the words of grpc's asyncio client, which then does not wait for the server's status."""

    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(Code.INTERNAL, "Internal error from Core", [], NO_RETRY)

    server.answer = fail
    with pytest.raises(ServerUnavailable, match="ended the call while a message was sent to it"):
        connect().classify(digits[0])


def test_grpc_error_is_kept_as_the_cause(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(
            Code.INTERNAL, "engine failed", [info("INTERNAL_FAULT", fault_id="0123abcd4567")]
        )

    server.answer = fail
    with pytest.raises(ServerFault) as caught:
        connect().classify(digits[0])
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert not isinstance(caught.value, grpc.RpcError)
    assert caught.value.fault_id == "0123abcd4567"


def test_refused_fields_are_named(connect: Connect, server: ScriptedServer, digits: Digits) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="pixels.height", description="expected 28, got 20")
    bad.field_violations.add(field="pixels.width", description="expected 28, got 21")

    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(Code.INVALID_ARGUMENT, "wrong size", [bad])

    server.answer = fail
    with pytest.raises(InvalidRequest) as caught:
        connect().classify(digits[0])
    assert caught.value.violations == (
        FieldViolation("pixels.height", "expected 28, got 20"),
        FieldViolation("pixels.width", "expected 28, got 21"),
    )


@pytest.mark.parametrize(
    "trailer",
    [b"\xff\xff\xff", Failure(Code.NOT_FOUND, "of another call").status.SerializeToString()],
    ids=["no status", "another status"],
)
def test_details_that_are_wrong_do_not_hide_the_error(
    connect: Connect, server: ScriptedServer, digits: Digits, trailer: bytes
) -> None:
    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(
            Code.PERMISSION_DENIED, "not you", trailers=[("grpc-status-details-bin", trailer)]
        )

    server.answer = fail
    with pytest.raises(PermissionDenied, match="not you"):
        connect().classify(digits[0])


def test_message_over_the_limit_of_the_server_is_too_large(connect: Connect) -> None:
    too_large = np.zeros((3, 1300, 1300, 3), np.uint8)
    with pytest.raises(MessageTooLarge, match=r"larger than max \(5070\d\d\d vs\. 4194304\)"):
        connect().classify(too_large)


def test_message_over_the_limit_of_the_server_ends_a_stream_with_that_error(
    connect: Connect,
) -> None:
    too_large = np.zeros((1300, 1300, 3), np.uint8)
    with pytest.raises(MessageTooLarge):
        list(connect().stream([too_large]))


def test_limit_that_the_server_names_is_in_the_error(
    connect: Connect, server: ScriptedServer, digits: Digits
) -> None:
    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        reason = info("MESSAGE_TOO_LARGE", limit_bytes="700")
        raise Failure(Code.RESOURCE_EXHAUSTED, "784 of 700 bytes", [reason], NO_RETRY)

    server.answer = fail
    with pytest.raises(MessageTooLarge) as caught:
        connect().classify(digits[0])
    assert caught.value.limit_bytes == 700


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (Code.RESOURCE_EXHAUSTED, "message larger than max"),
        (Code.INTERNAL, "failed; the log has more under id 0123abcd4567"),
    ],
)
def test_words_of_a_message_decide_nothing(code: Code, message: str) -> None:
    error = error_from_status(Failure(code, message).status)
    assert type(error) in (ServerBusy, ServerFault)
    assert getattr(error, "fault_id", None) is None


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(InvalidRequest, ValueError)
    assert issubclass(ModelNotFound, LookupError)
    assert issubclass(DeadlineExceeded, TimeoutError)


def test_drawn_tree_shows_every_error() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    kinds = {
        name
        for name in convserve.__all__
        if isinstance(kind := getattr(convserve, name), type) and issubclass(kind, ConvserveError)
    }
    assert drawn == kinds - {"ConvserveError"}
