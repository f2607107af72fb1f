"""Each error's way to a gRPC status: code, message, details, when to retry."""

import base64
import logging
from urllib.parse import quote

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from convserve_imaging.errors import DamagedPictureError
from convserve_server.core.batcher import Unloading
from convserve_server.core.errors import (
    AnswersUnread,
    BadImage,
    Cancelled,
    DeadlinePassed,
    Draining,
    FailedPrecondition,
    InternalFault,
    InvalidRequest,
    MessageTooLarge,
    ModelLoading,
    NoMemoryForRequest,
    NotExplicit,
    NotFound,
    NotReady,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    RequestTooSlow,
    ServeError,
    Unauthenticated,
    Unimplemented,
    VersionNotServed,
    VersionRefused,
    listed,
    quoted,
)
from convserve_server.protocols.base import Metadata
from convserve_server.protocols.grpc_errors import failure_status, to_failure, to_status

DETAILS = "grpc-status-details-bin"
PUSHBACK = "grpc-retry-pushback-ms"

#: One of each kind, its code, its message, its push-back in ms.
KINDS: list[tuple[ServeError, int, str, str | None]] = [
    (InvalidRequest("top_k", "is 0"), code_pb2.INVALID_ARGUMENT, "top_k: is 0", None),
    (NotFound("model", "cats", "no model 'cats'"), code_pb2.NOT_FOUND, "no model 'cats'", None),
    (Unauthenticated("who"), code_pb2.UNAUTHENTICATED, "who", None),
    (PermissionDenied("not you"), code_pb2.PERMISSION_DENIED, "not you", None),
    (RateLimited("too fast", 0.05), code_pb2.RESOURCE_EXHAUSTED, "too fast", "50"),
    (FailedPrecondition("not so"), code_pb2.FAILED_PRECONDITION, "not so", None),
    (Unimplemented("no method"), code_pb2.UNIMPLEMENTED, "no method", None),
    (NotReady("loading"), code_pb2.UNAVAILABLE, "loading", "1000"),
    (QueueFull("full", 0.25), code_pb2.RESOURCE_EXHAUSTED, "full", "250"),
    (MessageTooLarge("over 4 MiB", 2**22), code_pb2.RESOURCE_EXHAUSTED, "over 4 MiB", "-1"),
    (NoMemoryForRequest("no memory"), code_pb2.RESOURCE_EXHAUSTED, "no memory", "1000"),
    (RequestTooSlow("too slow"), code_pb2.DEADLINE_EXCEEDED, "too slow", None),
    (AnswersUnread("unread"), code_pb2.RESOURCE_EXHAUSTED, "unread", "-1"),
    (DeadlinePassed("late"), code_pb2.DEADLINE_EXCEEDED, "late", None),
    (Cancelled("gone"), code_pb2.CANCELLED, "gone", None),
]


def details_of(status: status_pb2.Status, kind: type[Message]) -> list[Message]:
    """The details of a kind, unpacked."""
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def trailers_of(error: ServeError) -> Metadata:
    return to_failure(error).trailers


def status_in(error: ServeError) -> status_pb2.Status | None:
    """The status in the trailers of a call."""
    packed = dict(trailers_of(error)).get(DETAILS)
    if packed is None:
        return None
    assert isinstance(packed, bytes)
    return status_pb2.Status.FromString(packed)


def test_kinds_below_are_all_there_are() -> None:
    assert {type(error) for error, *_ in KINDS} | {InternalFault} == set(
        ServeError.__subclasses__()
    )


@pytest.mark.parametrize(
    ("error", "code", "message", "pushback"), KINDS, ids=lambda value: type(value).__name__
)
def test_error_has_its_code_message_and_pushback(
    error: ServeError, code: int, message: str, pushback: str | None
) -> None:
    status = to_status(error)
    assert (status.code, status.message) == (code, message)
    failure = to_failure(error)
    assert (failure.code, failure.message, failure.reason) == (code, message, error.reason)
    trailers = dict(failure.trailers)
    assert len(trailers) == len(failure.trailers)
    assert trailers.get(PUSHBACK) == pushback
    # The details in the trailers are the status itself, or there are none.
    assert status_in(error) == (status if status.details else None)
    assert failure_status(failure) == status


def test_quota_is_not_waited_for_by_clients_that_retry_by_themselves() -> None:
    error = QuotaExceeded("too many", 3600)
    assert to_failure(error).reason == "QUOTA_EXCEEDED"
    assert dict(trailers_of(error))[PUSHBACK] == "-1"
    (retry,) = details_of(to_status(error), error_details_pb2.RetryInfo)
    assert retry == error_details_pb2.RetryInfo(retry_delay={"seconds": 3600})


@pytest.mark.parametrize("error", [ModelLoading("a"), Draining("b"), Unloading("c")], ids=repr)
def test_every_error_of_a_server_that_is_not_ready_is_unavailable(error: NotReady) -> None:
    assert to_status(error).code == code_pb2.UNAVAILABLE
    assert dict(trailers_of(error))[PUSHBACK] == "1000"


@pytest.mark.parametrize("kind", [VersionRefused, VersionNotServed, NotExplicit])
def test_everything_that_cannot_be_done_as_things_are_is_a_failed_precondition(
    kind: type[FailedPrecondition],
) -> None:
    assert to_status(kind("it is so")).code == code_pb2.FAILED_PRECONDITION


def test_invalid_request_names_the_field_in_a_bad_request() -> None:
    status = status_in(InvalidRequest("pixels.height", "expected 28, got 27"))
    assert status is not None
    [bad] = details_of(status, error_details_pb2.BadRequest)
    assert bad == error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field="pixels.height", description="expected 28, got 27"
            )
        ]
    )


def test_not_found_names_the_resource() -> None:
    status = status_in(NotFound("version", "mnist/3", "model mnist has no version 3; loaded: 1"))
    assert status is not None
    [info] = details_of(status, error_details_pb2.ResourceInfo)
    assert info == error_details_pb2.ResourceInfo(
        resource_type="version",
        resource_name="mnist/3",
        description="model mnist has no version 3; loaded: 1",
    )


@pytest.mark.parametrize(
    ("error", "reason", "metadata"),
    [
        (BadImage(1, DamagedPictureError("it is damaged")), "DAMAGED", {}),
        (VersionRefused("refused"), "VERSION_REFUSED", {}),
        (VersionNotServed("not served"), "VERSION_NOT_SERVED", {}),
        (NotExplicit("by the folder"), "NOT_EXPLICIT", {}),
        (ModelLoading("loading"), "MODEL_LOADING", {}),
        (Draining("draining"), "DRAINING", {}),
        (QueueFull("full", 1.0), "QUEUE_FULL", {}),
        (MessageTooLarge("large", 100), "MESSAGE_TOO_LARGE", {"limit_bytes": "100"}),
        (AnswersUnread("unread"), "ANSWERS_UNREAD", {}),
        (NoMemoryForRequest("no memory"), "NO_MEMORY_FOR_REQUEST", {}),
        (RequestTooSlow("too slow"), "REQUEST_TOO_SLOW", {}),
        (DeadlinePassed("late"), "DEADLINE_PASSED", {}),
    ],
    ids=repr,
)
def test_error_info_has_the_reason_and_what_belongs_to_it(
    error: ServeError, reason: str, metadata: dict[str, str]
) -> None:
    status = status_in(error)
    assert status is not None
    [info] = details_of(status, error_details_pb2.ErrorInfo)
    assert info == error_details_pb2.ErrorInfo(reason=reason, domain="convserve", metadata=metadata)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("top_k", "is 0"),
        NotFound("model", "cats", "no model 'cats'"),
        Unimplemented("no method"),
        Cancelled("gone"),
    ],
    ids=repr,
)
def test_error_whose_code_says_all_has_no_error_info(error: ServeError) -> None:
    assert not details_of(to_status(error), error_details_pb2.ErrorInfo)


@pytest.mark.parametrize(
    ("error", "seconds", "nanos"),
    [(QueueFull("full", 2.5), 2, 500_000_000), (NotReady("draining"), 1, 0)],
)
def test_error_that_passes_says_when_to_retry(error: ServeError, seconds: int, nanos: int) -> None:
    status = status_in(error)
    assert status is not None
    [retry] = details_of(status, error_details_pb2.RetryInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    "error", [Cancelled("gone"), DeadlinePassed("late"), MessageTooLarge("large", 1)], ids=repr
)
def test_error_that_stays_has_no_retry_info(error: ServeError) -> None:
    assert not details_of(to_status(error), error_details_pb2.RetryInfo)


def test_internal_fault_gives_its_id_and_nothing_of_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = InternalFault("the engine", KeyError("secret of the operator"))
    status = to_status(fault)
    assert status.code == code_pb2.INTERNAL
    assert status.message == f"the engine failed; the server's log has more under id {fault.id}"
    assert "secret" not in str(status)
    failure = to_failure(fault)
    assert "secret" not in str(failure)
    # Nothing but the id, which is in the log; a program finds it in the details.
    assert dict(failure.trailers) == {DETAILS: status.SerializeToString()}
    [detail] = status.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert info == error_details_pb2.ErrorInfo(
        reason="INTERNAL_FAULT", domain="convserve", metadata={"fault_id": fault.id}
    )
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert vars(record)["fault_id"] == fault.id


LONG = ["a" * 100_000, "é" * 100_000, "%" * 5_000, "\n" * 2_000, "a b" * 700, "𝟘" * 400]


def sent_bytes(error: ServeError) -> int:
    """Bytes of the header fields of an error, as gRPC counts them (RFC 9113: 32 for each)."""
    fields = {"grpc-status": "5", "grpc-message": quote(to_status(error).message)}
    for key, value in trailers_of(error):
        fields[key] = value if isinstance(value, str) else base64.b64encode(value).decode()
    return sum(len(key) + len(value) + 32 for key, value in fields.items())


@pytest.mark.parametrize("text", LONG, ids=lambda text: repr(text[:3]))
@pytest.mark.parametrize(
    "kind",
    [
        lambda text: InvalidRequest(text, text),
        lambda text: NotFound("model", text, f"no model {quoted(text)}; loaded: {listed([text])}"),
        lambda text: NotFound("model", text, f"no model {text!r}"),
        NotReady,
        lambda text: QueueFull(text, 1.0),
        Unimplemented,
    ],
)
def test_error_fits_into_header_fields_whatever_it_repeats(kind: object, text: str) -> None:
    assert callable(kind)
    # grpc's own clients take 8 KiB, with those that HTTP/2 has beside ours.
    assert sent_bytes(kind(text)) < 7500
