"""`convserve admin` over a real Unix socket, answered by the test."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from convserve.main import main
from convserve_protos import admin_pb2 as pb
from convserve_protos import admin_pb2_grpc
from tests.clients.scripted_server import PATIENCE_S, Failure

Capture = pytest.CaptureFixture[str]


class AdminServer(admin_pb2_grpc.AdminServicer):
    """Attributes are set by a test before it calls, and read afterwards.

    Attributes:
        requests: That came, without those to list.
        failure: That ends whatever is asked, but for a listing.
        hold: Keeps those calls without an answer until it is set.
    """

    def __init__(self, path: Path) -> None:
        self.requests: list[object] = []
        self.failure: Failure | None = None
        self.hold: threading.Event | None = None
        self.versions = [
            pb.VersionStatus(
                model="cats",
                version=1,
                state=pb.VERSION_STATE_REFUSED,
                reason="not an ONNX file",
            ),
            pb.VersionStatus(
                model="mnist",
                version=3,
                state=pb.VERSION_STATE_SERVED,
                labels=["canary", "stable"],
                default=True,
            ),
            pb.VersionStatus(model="mnist", version=2, state=pb.VERSION_STATE_FOUND),
        ]
        self._server = grpc.server(ThreadPoolExecutor(4))
        admin_pb2_grpc.add_AdminServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def stop(self) -> None:
        assert self._server.stop(grace=0).wait(PATIENCE_S)

    def LoadModel(
        self, request: pb.LoadModelRequest, context: grpc.ServicerContext
    ) -> pb.LoadModelResponse:
        self._note(request, context)
        return pb.LoadModelResponse()

    def UnloadModel(
        self, request: pb.UnloadModelRequest, context: grpc.ServicerContext
    ) -> pb.UnloadModelResponse:
        self._note(request, context)
        return pb.UnloadModelResponse()

    def SetLabel(
        self, request: pb.SetLabelRequest, context: grpc.ServicerContext
    ) -> pb.SetLabelResponse:
        self._note(request, context)
        return pb.SetLabelResponse()

    def ListVersions(
        self, request: pb.ListVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListVersionsResponse:
        return pb.ListVersionsResponse(versions=self.versions)

    def _note(self, request: object, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        if self.hold is not None:
            assert self.hold.wait(PATIENCE_S)
        if self.failure is not None:
            context.set_trailing_metadata(tuple(self.failure.trailers))
            context.abort(self.failure.code, str(self.failure))


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "admin"


@pytest.fixture
def admin_server(socket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdminServer]:
    monkeypatch.setenv("CONVSERVE_ADMIN_SOCKET", str(socket))
    server = AdminServer(socket)
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("load mnist --version 3", pb.LoadModelRequest(model="mnist", version=3)),
        ("load mnist", pb.LoadModelRequest(model="mnist")),
        ("unload mnist --version 3", pb.UnloadModelRequest(model="mnist", version=3)),
        ("unload mnist", pb.UnloadModelRequest(model="mnist")),
        (
            "label mnist stable --version 3",
            pb.SetLabelRequest(model="mnist", label="stable", version=3),
        ),
        ("label mnist stable --remove", pb.SetLabelRequest(model="mnist", label="stable")),
    ],
)
def test_command_asks_and_prints_the_versions_of_the_model(
    admin_server: AdminServer, capsys: Capture, words: str, request_: object
) -> None:
    assert main(["admin", *words.split()]) == 0
    assert admin_server.requests == [request_]
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "version", "state", "default", "labels", "reason"]
    assert [row.split() for row in rows] == [
        ["mnist", "3", "served", "yes", "canary,", "stable"],
        ["mnist", "2", "found"],
    ]


def test_list_prints_all_versions_with_state_and_reason(
    admin_server: AdminServer, capsys: Capture
) -> None:
    assert main(["admin", "list"]) == 0
    assert admin_server.requests == []
    rows = capsys.readouterr().out.splitlines()[1:]
    assert rows[0].split(maxsplit=3) == ["cats", "1", "refused", "not an ONNX file"]
    assert len(rows) == 3


@pytest.mark.usefixtures("admin_server")
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_list_prints_json(capsys: Capture, form: str) -> None:
    assert main(["admin", "list", "--format", form]) == 0
    out = capsys.readouterr().out
    found = json.loads(out) if form == "json" else [json.loads(line) for line in out.splitlines()]
    assert found[0] == {
        "model": "cats",
        "version": 1,
        "state": "refused",
        "default": False,
        "labels": [],
        "reason": "not an ONNX file",
    }
    assert found[1]["labels"] == ["canary", "stable"]
    assert len(found) == 3


def test_state_that_this_client_does_not_know_is_its_number(
    admin_server: AdminServer, capsys: Capture
) -> None:
    admin_server.versions = [pb.VersionStatus(model="mnist", version=1, state=77)]  # type: ignore[arg-type]  # Of a newer server.
    assert main(["admin", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["mnist", "1", "77"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_REFUSED"),
        (grpc.StatusCode.NOT_FOUND, None),
        (grpc.StatusCode.INVALID_ARGUMENT, None),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_1(
    admin_server: AdminServer, capsys: Capture, code: grpc.StatusCode, reason: str | None
) -> None:
    details = [error_details_pb2.ErrorInfo(reason=reason, domain="convserve")] if reason else []
    admin_server.failure = Failure(code, "mnist/3 is not served: it is garbage", details)
    assert main(["admin", "load", "mnist", "--version", "3"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "convserve: mnist/3 is not served: it is garbage\n"


def test_timeout_holds(admin_server: AdminServer, socket: Path, capsys: Capture) -> None:
    admin_server.hold = threading.Event()
    assert main(["admin", "load", "mnist", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().err == f"convserve: no answer from unix:{socket} within 0.2 s\n"
    admin_server.hold.set()


def test_socket_that_is_not_there_says_what_to_look_at(socket: Path, capsys: Capture) -> None:
    assert main(["admin", "list", "--socket", str(socket)]) == 1
    assert capsys.readouterr().err == (
        f"convserve: cannot connect to unix:{socket}: No such file or directory\n"
        "convserve: is the server running with --admin-socket, by the same user? Others cannot "
        "open it\n"
    )


def test_wait_is_for_a_server_that_is_not_there_yet(socket: Path, capsys: Capture) -> None:
    servers: list[AdminServer] = []
    start = threading.Timer(0.5, lambda: servers.append(AdminServer(socket)))
    start.start()
    assert main(["admin", "list", "--socket", str(socket), "--wait", str(PATIENCE_S)]) == 0
    start.join(PATIENCE_S)
    servers[0].stop()
    assert f"waiting for unix:{socket}" in capsys.readouterr().err


def test_path_may_be_relative(
    admin_server: AdminServer, socket: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(socket.parent)
    assert main(["admin", "list", "--socket", os.path.relpath(socket)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("admin", "COMMAND"),
        ("admin lod mnist", "invalid choice: 'lod'"),
        ("admin lod mnist", "(did you mean load?)"),
        ("admin load", "NAME"),
        ("admin list", "--socket"),
        ("admin load mnist --socket s --version 0", "expected an integer of 1 or more, got '0'"),
        ("admin label mnist stable --socket s", "--version --remove is required"),
        ("admin label mnist stable --socket s --version 3 --remove", "not allowed with"),
        ("admin load mnist --socket s --versio 3", "(did you mean --version?)"),
    ],
)
def test_wrong_usage_is_exit_2(capsys: Capture, words: str, reason: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
