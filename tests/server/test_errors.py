"""Each error's way to a gRPC status: code, message, details, when to retry."""

import base64
import logging
from urllib.parse import quote

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from convserve_server.errors import (
    Cancelled,
    DeadlinePassed,
    InternalFault,
    InvalidRequest,
    MessageTooLarge,
    NotFound,
    NotReady,
    QueueFull,
    ServeError,
    Unimplemented,
    fitting,
    listed,
    quoted,
    to_status,
    to_trailers,
)

DETAILS = "grpc-status-details-bin"
PUSHBACK = "grpc-retry-pushback-ms"

#: One of each kind, its code, its message, its push-back in ms.
KINDS: list[tuple[ServeError, int, str, str | None]] = [
    (InvalidRequest("top_k", "is 0"), code_pb2.INVALID_ARGUMENT, "top_k: is 0", None),
    (NotFound("model", "cats", "no model 'cats'"), code_pb2.NOT_FOUND, "no model 'cats'", None),
    (Unimplemented("no method"), code_pb2.UNIMPLEMENTED, "no method", None),
    (NotReady("loading"), code_pb2.UNAVAILABLE, "loading", "1000"),
    (QueueFull("full", 0.25), code_pb2.RESOURCE_EXHAUSTED, "full", "250"),
    (MessageTooLarge("over 4 MiB"), code_pb2.RESOURCE_EXHAUSTED, "over 4 MiB", "-1"),
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


def status_in(error: ServeError) -> status_pb2.Status | None:
    """The status in the trailers of a call."""
    packed = dict(to_trailers(error)).get(DETAILS)
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
    trailers = dict(to_trailers(error))
    assert len(trailers) == len(to_trailers(error))
    assert trailers.get(PUSHBACK) == pushback
    # The details in the trailers are the status itself, or there are none.
    assert status_in(error) == (status if status.details else None)


def test_invalid_request_names_the_field_in_a_bad_request() -> None:
    status = status_in(InvalidRequest("pixels.height", "is 27, 28 is taken"))
    assert status is not None
    [bad] = details_of(status, error_details_pb2.BadRequest)
    assert bad == error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field="pixels.height", description="is 27, 28 is taken"
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
    "error", [Cancelled("gone"), DeadlinePassed("late"), MessageTooLarge("large")], ids=repr
)
def test_error_that_stays_has_no_retry_info(error: ServeError) -> None:
    assert not details_of(to_status(error), error_details_pb2.RetryInfo)


def test_internal_fault_gives_an_id_and_logs_the_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise KeyError("secret of the house")
    except KeyError as error:
        cause = error
    fault = InternalFault("the engine", cause)
    status = to_status(fault)
    assert status.code == code_pb2.INTERNAL
    assert status.message == f"the engine failed; the server's log has more under id {fault.id}"
    assert "secret" not in str(status)
    assert to_trailers(fault) == ()
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"the engine failed, id {fault.id}"
    assert vars(record)["fault_id"] == fault.id
    assert "KeyError: 'secret of the house'" in caplog.text
    assert "test_errors.py" in caplog.text
    assert fault.__cause__ is cause


def test_internal_faults_have_different_ids() -> None:
    cause = ValueError("broken")
    assert InternalFault("one", cause).id != InternalFault("one", cause).id


LONG = ["a" * 100_000, "é" * 100_000, "%" * 5_000, "\n" * 2_000, "a b" * 700, "𝟘" * 400]


def sent_bytes(error: ServeError) -> int:
    """Bytes of the header fields of an error, as gRPC counts them (RFC 9113: 32 for each)."""
    fields = {"grpc-status": "5", "grpc-message": quote(to_status(error).message)}
    for key, value in to_trailers(error):
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


def test_text_that_fits_is_as_it_was() -> None:
    text = "no model 'mnïst'; loaded: mnist, photos"
    assert fitting(text) == text
    assert fitting("a" * 1024) == "a" * 1024


def test_text_that_does_not_fit_keeps_its_ends() -> None:
    cut = fitting("begin" + "x" * 5000 + "end")
    assert cut.startswith("beginx")
    assert cut.endswith("xend")
    assert "…" in cut
    assert 900 < len(quote(cut)) <= 1024


def test_names_that_do_not_fit_are_counted() -> None:
    assert listed([]) == "none"
    assert listed(["cats", "mnist"]) == "cats, mnist"
    names = [f"model-of-digits-{number:02}" for number in range(70)]
    text = listed(names)
    shown, more = text.split(", and ")
    count = len(shown.split(", "))
    assert shown == ", ".join(names[:count])
    assert 10 < count < 70
    assert more == f"{70 - count} more"
    # One name that is too long by itself is still shown, without its middle.
    assert listed(["x" * 255]).startswith("xxx")
