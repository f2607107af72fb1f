"""--wait: a server that is not there yet, has not the model yet, or is gone for a while."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from convserve.command.waiting import Wait
from convserve.errors import ConvserveError, InvalidRequest, ModelNotFound, ServerUnavailable
from convserve.main import main
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.command.test_classify_ends import seen_on, terminal
from tests.clients.scripted_server import PATIENCE_S, Answer, Failure, ScriptedServer, answer, model
from tests.clients.test_retries import reserved_address
from tests.program import Program

Capture = pytest.CaptureFixture[str]
FILES = 40
NO_RETRY = [("grpc-retry-pushback-ms", "-1")]
LONG = f"{PATIENCE_S:g}"
PROGRAM = [sys.executable, "-c", "import sys; from convserve.main import main; sys.exit(main())"]


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    server.models = [model("ten", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    (tmp_path / "set" / "7").mkdir(parents=True)
    for number in range(FILES):
        (tmp_path / "set" / "7" / f"{number:02}.jpg").write_bytes(b"\x07" + b"\n" * number)
    monkeypatch.chdir(tmp_path)


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("convserve.command.waiting.time.monotonic", lambda: self.now_s)
        self.stopped = threading.Event()
        monkeypatch.setattr(self.stopped, "wait", self.pass_by)

    def pass_by(self, seconds: float) -> bool:
        self.now_s += seconds
        return self.stopped.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def failing(*errors: ConvserveError) -> Callable[[], str]:
    """Raises each error in turn, the last one for ever."""
    left: Iterator[ConvserveError] = iter(errors)
    last = errors[-1]

    def ask() -> str:
        raise next(left, last)

    return ask


def answering_after(*errors: ConvserveError) -> Callable[[], str]:
    left = iter(errors)

    def ask() -> str:
        for error in left:
            raise error
        return "answer"

    return ask


def quiet(wait_s: float) -> tuple[Wait, list[str]]:
    messages: list[str] = []
    wait = Wait(wait_s, "a:1")
    wait.say = messages.append
    return wait, messages


def test_window_of_the_first_call_is_counted_from_the_start(clock: Clock) -> None:
    wait, _ = quiet(5)
    clock.now_s += 4
    with pytest.raises(ServerUnavailable) as caught:
        wait.call(failing(ServerUnavailable("refused")), clock.stopped)
    assert clock.now_s == 105
    assert caught.value.__notes__ == ["waited 5.0 s for a:1"]


def test_window_of_a_later_outage_is_counted_from_its_first_failure(clock: Clock) -> None:
    wait, _ = quiet(5)
    assert wait.call(lambda: "answer", clock.stopped) == "answer"
    clock.now_s = 1000
    with pytest.raises(ServerUnavailable):
        wait.call(failing(ServerUnavailable("refused")), clock.stopped)
    assert clock.now_s == 1005
    assert wait.call(answering_after(ModelNotFound("none")), clock.stopped) == "answer"


def test_last_error_is_the_one_that_is_raised(clock: Clock) -> None:
    wait, messages = quiet(1)
    with pytest.raises(ModelNotFound, match="there is none"):
        wait.call(
            failing(ServerUnavailable("refused"), ModelNotFound("there is none")), clock.stopped
        )
    assert messages == [
        "waiting for a:1, 1 s at most: refused",
        "waiting for a:1, 1 s at most: there is none",
    ]


def test_reason_is_printed_once_in_an_outage_and_again_in_the_next(clock: Clock) -> None:
    wait, messages = quiet(60)
    outage = [ServerUnavailable("refused")] * 100
    assert wait.call(answering_after(*outage), clock.stopped) == "answer"
    assert len(messages) == 1
    clock.now_s += 600
    assert wait.call(answering_after(*outage), clock.stopped) == "answer"
    assert len(messages) == 2


def test_without_a_window_nothing_is_asked_again_nor_printed(clock: Clock) -> None:
    wait, messages = quiet(0)
    error = ServerUnavailable("refused")
    with pytest.raises(ServerUnavailable):
        wait.call(failing(error), clock.stopped)
    assert (clock.now_s, messages, hasattr(error, "__notes__")) == (100.0, [], False)


def test_what_is_no_sign_of_absence_is_raised_at_once(clock: Clock) -> None:
    wait, messages = quiet(5)
    with pytest.raises(InvalidRequest):
        wait.call(failing(InvalidRequest("wrong")), clock.stopped)
    assert (clock.now_s, messages) == (100.0, [])


def test_stop_ends_the_wait(clock: Clock) -> None:
    wait, _ = quiet(5)
    clock.stopped.set()
    error = ServerUnavailable("refused")
    with pytest.raises(ServerUnavailable):
        wait.call(failing(error), clock.stopped)
    assert (clock.now_s, hasattr(error, "__notes__")) == (100.0, False)


def absent_first(times: int, code: grpc.StatusCode) -> Answer:
    """The first calls fail, whichever they are; gRPC itself must not try again."""
    lock, left = threading.Lock(), [times]

    def refuse(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        with lock:
            left[0] -= 1
            refused = left[0] >= 0
        if refused:
            raise Failure(code, "not now", trailers=NO_RETRY)
        return answer(request)

    return refuse


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED],
)
@pytest.mark.parametrize("command", ["classify", "evaluate"])
def test_calls_to_a_server_that_is_absent_for_a_while_are_all_answered(
    server: ScriptedServer, capsys: Capture, code: grpc.StatusCode, command: str
) -> None:
    server.answer = absent_first(12, code)
    assert main([command, "set", "--wait", LONG, "--format", "jsonl", "--in-flight", "4"]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    if command == "classify":
        assert [row["file"] for row in rows] == [f"set/7/{n:02}.jpg" for n in range(FILES)]
    else:
        assert [row["right"] for row in rows] == [FILES]
    (reported,) = printed.err.splitlines()
    assert reported.startswith(f"waiting for {server.address}, {LONG} s at most: ")
    assert reported.endswith("not now")
    assert len(server.requests) == FILES + 12


@pytest.mark.parametrize("command", ["classify", "evaluate"])
def test_without_wait_the_first_absence_ends_the_run(
    server: ScriptedServer, capsys: Capture, command: str
) -> None:
    server.answer = absent_first(1, grpc.StatusCode.NOT_FOUND)
    assert main([command, "set", "--format", "jsonl", "--in-flight", "1"]) == 1
    assert capsys.readouterr() == ("", "convserve: not now\n")


def test_absence_to_the_end_of_the_window_is_reported_with_the_time(
    server: ScriptedServer, capsys: Capture
) -> None:
    server.answer = absent_first(10**9, grpc.StatusCode.UNAVAILABLE)
    assert main(["evaluate", "set", "--wait", "0.6"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    waiting, error, waited = printed.err.splitlines()
    assert waiting.startswith("waiting for ")
    assert error == f"convserve: {server.address}: not now"
    assert waited.startswith("convserve: waited ")
    assert waited.endswith(f" s for {server.address}")


def test_next_try_goes_over_a_new_connection_which_may_meet_another_worker(
    server: ScriptedServer,
) -> None:
    server.answer = absent_first(2, grpc.StatusCode.NOT_FOUND)
    assert (
        main(["classify", "set/7/00.jpg", "set/7/01.jpg", "--wait", LONG, "--in-flight", "1"]) == 0
    )
    first, second, third, fourth = server.peers
    assert len({first, second, third}) == 3
    assert third == fourth


def test_model_that_is_loaded_later_is_waited_for(server: ScriptedServer, capsys: Capture) -> None:
    class Models(list[classifier_pb2.Model]):
        """Empty the first two times."""

        def __iter__(self) -> Iterator[classifier_pb2.Model]:
            return iter([]) if server.lists <= 2 else super().__iter__()

    server.models = Models(server.models)
    command = ["classify", "set/7/00.jpg", "--model", "ten", "--wait", LONG]
    assert main([*command, "--format", "jsonl"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["label"] == "7"
    assert printed.err.endswith(": model ten is not loaded; there is none\n")
    assert server.lists == 3


def test_model_that_never_comes_is_named(capsys: Capture) -> None:
    assert main(["evaluate", "set", "--model", "eleven", "--wait", "0.3"]) == 1
    _, error, waited = capsys.readouterr().err.splitlines()
    assert error == "convserve: model eleven is not loaded; there is ten/1"
    assert re.match(r"convserve: waited \d+\.\d s for ", waited)


@pytest.mark.parametrize(
    "arguments",
    [["classify", "set"], ["evaluate", "set"], ["models"], ["health"]],
    ids=lambda arguments: arguments[0],
)
def test_server_that_starts_later_is_waited_for(arguments: list[str], tmp_path: Path) -> None:
    with reserved_address() as address:
        command = [*PROGRAM, *arguments, "--server", address, "--wait", LONG]
        with Program[str](
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as running:
            assert running.stderr is not None
            reported = running.stderr.readline()
            late = ScriptedServer(address)
            late.models = [model("ten", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
            out, err = running.communicate(timeout=PATIENCE_S)
        late.stop()
    reason = f"cannot connect to {address}: Connection refused"
    assert reported.startswith(f"waiting for {address}, {LONG} s at most: {reason}; is the server ")
    assert running.returncode == 0, err
    assert out
    assert "waiting" not in err


def test_health_waits_until_the_server_serves(server: ScriptedServer, capsys: Capture) -> None:
    asked = []

    class Statuses(dict[str, int]):
        def __getitem__(self, service: str) -> int:
            asked.append(service)
            status = health_pb2.HealthCheckResponse
            return int(status.NOT_SERVING if len(asked) < 3 else status.SERVING)

    server.health = Statuses({"": 0})
    assert main(["health", "--wait", LONG]) == 0
    reported = f"waiting for {server.address}, {LONG} s at most: it is NOT_SERVING\n"
    assert capsys.readouterr() == ("SERVING\n", reported)
    assert len(asked) == 3


def test_health_of_a_server_that_never_serves_is_its_last_word(
    server: ScriptedServer, capsys: Capture
) -> None:
    server.health[""] = health_pb2.HealthCheckResponse.NOT_SERVING
    assert main(["health", "--wait", "0.3"]) == 1
    assert capsys.readouterr().out == "NOT_SERVING\n"


def test_wait_is_printed_on_a_line_of_its_own_beside_a_progress_bar(server: ScriptedServer) -> None:
    server.answer = absent_first(3, grpc.StatusCode.UNAVAILABLE)
    with terminal() as (ours, theirs):
        command = [*PROGRAM, "evaluate", "set", "--wait", LONG]
        running = Program[bytes](command, stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = seen_on(ours)
        assert running.wait(PATIENCE_S) == 0
    lines = seen.replace("\r", "\n").splitlines()
    reported = f"waiting for {server.address}, {LONG} s at most: {server.address}: not now"
    assert lines.count(reported) == 1
    assert any("images/s]" in line for line in lines)
    assert f"right answers   {FILES} of {FILES} (100.00%)" in lines
