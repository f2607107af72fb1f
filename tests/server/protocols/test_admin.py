"""convserve.v1.Admin over what an operator may ask."""

from concurrent.futures import Future

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2

from convserve_protos import admin_pb2 as pb
from convserve_server.core.administration import VersionState, VersionStatus
from convserve_server.core.errors import (
    InternalFault,
    NotExplicit,
    NotFound,
    ServeError,
    VersionNotServed,
    VersionRefused,
)
from convserve_server.protocols.admin.service import SERVICE, Admin
from convserve_server.protocols.base import Failure
from convserve_server.protocols.grpc_errors import failure_status
from convserve_server.protocols.router import Router
from tests.server.fake_administration import FakeAdministration
from tests.server.in_process_transport import InProcessTransport


@pytest.fixture
def administration() -> FakeAdministration:
    return FakeAdministration()


@pytest.fixture
def transport(administration: FakeAdministration) -> InProcessTransport:
    transport = InProcessTransport()
    transport.start(Router([Admin(administration)]))
    return transport


def ask(transport: InProcessTransport, method: str, request: Message) -> "Future[bytes | Failure]":
    return transport.ask(f"/{SERVICE}/{method}", request.SerializeToString())


@pytest.mark.parametrize(
    ("method", "request_", "asked"),
    [
        ("LoadModel", pb.LoadModelRequest(model="mnist", version=3), ("load", "mnist", 3)),
        ("LoadModel", pb.LoadModelRequest(model="mnist"), ("load", "mnist", None)),
        ("UnloadModel", pb.UnloadModelRequest(model="mnist", version=3), ("unload", "mnist", 3)),
        ("UnloadModel", pb.UnloadModelRequest(model="mnist"), ("unload", "mnist", None)),
        (
            "SetLabel",
            pb.SetLabelRequest(model="mnist", label="stable", version=3),
            ("set_label", "mnist", "stable", 3),
        ),
        (
            "SetLabel",
            pb.SetLabelRequest(model="mnist", label="stable"),
            ("set_label", "mnist", "stable", None),
        ),
    ],
)
def test_call_is_answered_when_it_is_done(
    transport: InProcessTransport,
    administration: FakeAdministration,
    method: str,
    request_: Message,
    asked: tuple[object, ...],
) -> None:
    administration.held = True
    answer = ask(transport, method, request_)
    assert administration.asked == [asked]
    assert not answer.done()
    administration.release()
    assert answer.result(0) == b""


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (NotFound("version", "mnist/9", "there is none"), code_pb2.NOT_FOUND, None),
        (VersionRefused("it is garbage"), code_pb2.FAILED_PRECONDITION, "VERSION_REFUSED"),
        (VersionNotServed("it is not"), code_pb2.FAILED_PRECONDITION, "VERSION_NOT_SERVED"),
        (NotExplicit("by the folder"), code_pb2.FAILED_PRECONDITION, "NOT_EXPLICIT"),
        (InternalFault("loading", ValueError("x")), code_pb2.INTERNAL, "INTERNAL_FAULT"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_done_ends_with_its_status_and_reason(
    transport: InProcessTransport,
    administration: FakeAdministration,
    error: ServeError,
    code: int,
    reason: str | None,
) -> None:
    administration.error = error
    failure = ask(transport, "LoadModel", pb.LoadModelRequest(model="mnist")).result(0)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.message) == (code, str(error))
    info = error_details_pb2.ErrorInfo()
    found = [info.reason for one in failure_status(failure).details if one.Unpack(info)]
    assert found == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("method", "request_", "message"),
    [
        (
            "LoadModel",
            pb.LoadModelRequest(),
            "model: expected as a model's name 1 to 64 of A-Z a-z 0-9 . _ -, beginning with "
            "A-Z a-z 0-9, got ''",
        ),
        ("UnloadModel", pb.UnloadModelRequest(model="a/b"), "model: expected as a model's name"),
        ("SetLabel", pb.SetLabelRequest(model=".a", label="x"), "model: expected as a model's"),
        (
            "LoadModel",
            pb.LoadModelRequest(model="mnist", version=0),
            "version: expected as a version 1, 2, 3 and so on, at most 18 digits, got 0",
        ),
        (
            "UnloadModel",
            pb.UnloadModelRequest(model="mnist", version=10**18),
            f"version: expected as a version 1, 2, 3 and so on, at most 18 digits, got {10**18}",
        ),
        ("SetLabel", pb.SetLabelRequest(model="mnist", label="x", version=0), "version: expected"),
        ("SetLabel", pb.SetLabelRequest(model="mnist"), "label: expected as a label 1 to 64 of "),
        ("SetLabel", pb.SetLabelRequest(model="mnist", label="a b"), "label: expected as a label"),
    ],
)
def test_field_that_cannot_be_is_named_and_nothing_is_asked(
    transport: InProcessTransport,
    administration: FakeAdministration,
    method: str,
    request_: Message,
    message: str,
) -> None:
    failure = ask(transport, method, request_).result(0)
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.INVALID_ARGUMENT
    assert failure.message.startswith(message)
    assert administration.asked == []


@pytest.mark.parametrize("method", ["LoadModel", "UnloadModel", "SetLabel", "ListVersions"])
def test_bytes_that_are_no_request_are_refused(transport: InProcessTransport, method: str) -> None:
    failure = transport.ask(f"/{SERVICE}/{method}", b"\xff").result(0)
    assert isinstance(failure, Failure)
    assert failure.code == code_pb2.INVALID_ARGUMENT


def test_versions_are_listed_with_state_reason_labels_and_default(
    transport: InProcessTransport, administration: FakeAdministration
) -> None:
    administration.versions = [
        VersionStatus("mnist", 3, VersionState.SERVED, labels=("canary", "stable"), default=True),
        VersionStatus("mnist", 2, VersionState.REFUSED, "x" * 5000),
    ]
    payload = ask(transport, "ListVersions", pb.ListVersionsRequest()).result(0)
    assert isinstance(payload, bytes)
    first, second = pb.ListVersionsResponse.FromString(payload).versions
    assert first == pb.VersionStatus(
        model="mnist",
        version=3,
        state=pb.VERSION_STATE_SERVED,
        labels=["canary", "stable"],
        default=True,
    )
    assert (second.version, second.state) == (2, pb.VERSION_STATE_REFUSED)
    assert len(second.reason) < 1000


@pytest.mark.parametrize("state", VersionState)
def test_each_state_has_its_value_in_the_protocol(
    transport: InProcessTransport, administration: FakeAdministration, state: VersionState
) -> None:
    administration.versions = [VersionStatus("mnist", 1, state)]
    payload = ask(transport, "ListVersions", pb.ListVersionsRequest()).result(0)
    assert isinstance(payload, bytes)
    [status] = pb.ListVersionsResponse.FromString(payload).versions
    assert pb.VersionState.Name(status.state) == f"VERSION_STATE_{state.name}"
