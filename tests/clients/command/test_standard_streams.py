"""Standard streams that are closed or full: a line and a status, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from convserve_protos import bundle_pb2
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer, model

PROGRAM = [sys.executable, "-c", "import sys; from convserve.main import main; sys.exit(main())"]

COMMANDS = {
    "models": ["models"],
    "models as JSON": ["models", "--format", "jsonl"],
    "health": ["health"],
    "classify": ["classify", "a.jpg"],
    "evaluate": ["evaluate", "."],
    "bench": ["bench", "--seconds", "0.1", "--warm-up", "0", "--pixels"],
    "help": ["--help"],
    "help of a command": ["classify", "--help"],
    "version": ["--version"],
}


@pytest.fixture(autouse=True)
def _photos(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    monkeypatch.chdir(tmp_path)
    server.models = [model("ten", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    (tmp_path / "a.jpg").write_bytes(b"whole")
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "a.jpg").write_bytes(b"whole")


def run(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", COMMANDS)
def test_full_output_is_one_line_and_exit_1(
    command: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = run(">/dev/full", *COMMANDS[command])
    reported = "convserve: cannot write standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, reported)


@pytest.mark.parametrize("command", COMMANDS)
def test_closed_output_is_one_line_and_exit_1(command: str, server: ScriptedServer) -> None:
    done = run(">&-", *COMMANDS[command])
    reported = "convserve: cannot write standard output: it is closed\n"
    assert (done.returncode, done.stderr) == (1, reported)
    assert server.requests == []


@pytest.mark.parametrize("command", ["help", "version", "models"])
def test_reader_that_left_is_no_news(command: str) -> None:
    done = run("| true; exit ${PIPESTATUS[0]}", *COMMANDS[command])
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0 where all was in the pipe before its reader left.


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
@pytest.mark.parametrize("command", ["models", "health", "classify"])
def test_answers_do_not_hang_on_other_streams(command: str, redirection: str) -> None:
    done = run(redirection, *COMMANDS[command])
    expected = run("", *COMMANDS[command])
    assert (done.returncode, done.stdout, done.stderr) == (0, expected.stdout, "")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">&- 2>&-", ">/dev/full 2>&-"])
def test_failure_that_cannot_be_printed_is_exit_1(server: ScriptedServer, redirection: str) -> None:
    server.models = []
    done = run(redirection, "classify", "a.jpg", "b.jpg")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_closed_input_is_named_in_its_row() -> None:
    done = run("<&-", "classify", "-", "a.jpg")
    first, second = done.stdout.splitlines()
    assert first.split(maxsplit=2) == ["-", "-", "error: standard input is closed"]
    assert second.startswith("a.jpg")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
