"""What `convserve classify` does when the server goes away, fails or is busy."""

import json
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from convserve.command.tally import PATIENCE_FILES
from convserve.main import main
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.scripted_server import Answer, Failure, ScriptedServer, answer, model

Capture = pytest.CaptureFixture[str]
FILES = 40
NO_RETRY = [("grpc-retry-pushback-ms", "-1")]


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    server.models = [model("cats-dogs", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    (tmp_path / "photos").mkdir()
    for number in range(FILES):
        (tmp_path / "photos" / f"{number:02}.jpg").write_bytes(f"{number:02}".encode())
    monkeypatch.chdir(tmp_path)


def number_of(request: classifier_pb2.ClassifyRequest) -> int:
    return int(request.encoded.images[0])


def failing(code: grpc.StatusCode, message: str, *, first: int = 0) -> Answer:
    """Fails for the files from the first on; gRPC itself must not try again."""

    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        if number_of(request) >= first:
            raise Failure(code, message, trailers=NO_RETRY)
        return answer(request)

    return fail


def test_server_that_goes_away_ends_the_run_at_once(
    server: ScriptedServer, capsys: Capture
) -> None:
    server.answer = failing(grpc.StatusCode.UNAVAILABLE, "draining", first=10)
    assert main(["classify", "photos", "--in-flight", "2"]) == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == [
        f"photos/{number:02}.jpg" for number in range(10)
    ]
    summary, reason = printed.err.splitlines()
    assert summary.startswith("10 classified")
    assert reason == f"convserve: {server.address}: draining"
    assert len(server.requests) < FILES


def test_server_without_answers_is_given_up_after_some_files(
    server: ScriptedServer, capsys: Capture
) -> None:
    server.answer = failing(grpc.StatusCode.INTERNAL, "no engine, id 00ff00ff00ff")
    assert main(["classify", "photos", "--format", "jsonl", "--in-flight", "2"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == PATIENCE_FILES < FILES
    (reason,) = printed.err.splitlines()
    assert f"stopped, since {PATIENCE_FILES} files in a row had no answer" in reason
    assert "00ff00ff00ff" in reason


def busy(times: int) -> Answer:
    """Each file is refused that often; gRPC itself must not try again."""
    soon = error_details_pb2.RetryInfo()
    soon.retry_delay.FromMilliseconds(1)
    refused: dict[int, int] = {}

    def refuse(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        number = number_of(request)
        refused[number] = refused.get(number, 0) + 1
        if refused[number] <= times:
            raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", [soon], NO_RETRY)
        return answer(request)

    return refuse


def test_busy_server_is_asked_again_within_the_timeout(
    server: ScriptedServer, capsys: Capture
) -> None:
    server.answer = busy(3)
    assert main(["classify", "--format", "jsonl", "photos"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == FILES
    assert len(server.requests) == 4 * FILES


def test_server_that_is_busy_beyond_the_timeout_is_reported(
    server: ScriptedServer, capsys: Capture
) -> None:
    waits_ms = iter([1, 1, 1, 3_600_000])

    def refuse(_: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        later = error_details_pb2.RetryInfo()
        later.retry_delay.FromMilliseconds(next(waits_ms))
        raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", [later], NO_RETRY)

    server.answer = refuse
    assert main(["classify", "--format", "jsonl", "photos/00.jpg"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["reason"]) == ("RESOURCE_EXHAUSTED", "server-busy")
    assert len(server.requests) == 4


def test_file_that_cannot_be_answered_in_time_is_not_sent_again(
    server: ScriptedServer, capsys: Capture
) -> None:
    soon = error_details_pb2.RetryInfo()
    soon.retry_delay.FromMilliseconds(1)
    why = error_details_pb2.ErrorInfo(domain="convserve", reason="CANNOT_MEET_DEADLINE")

    def refuse(_: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too late", [why, soon])

    server.answer = refuse
    assert main(["classify", "--format", "jsonl", "photos/00.jpg"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {
        "code": "RESOURCE_EXHAUSTED",
        "reason": "cannot-meet-deadline",
        "message": "too late",
    }
    assert len(server.requests) == 1


def test_priority_of_the_command_is_sent_with_each_call(server: ScriptedServer) -> None:
    assert main(["classify", "--format", "jsonl", "--priority", "batch", "photos"]) == 0
    assert list(server.metadata) == [{"convserve-priority": "batch"}] * FILES


def test_request_that_the_server_refuses_for_all_files_is_one_line(
    server: ScriptedServer, capsys: Capture
) -> None:
    message = "top_k: expected 1 to 10, got 11"
    server.answer = failing(grpc.StatusCode.INVALID_ARGUMENT, message)
    assert main(["classify", "photos", "--top-k", "11"]) == 1
    assert capsys.readouterr() == ("", "convserve: top_k: expected 1 to 10, got 11\n")
