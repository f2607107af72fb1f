"""`convserve models --watch`: what has changed, on a terminal and through a pipe."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from convserve.command.watching import Seen, changes
from convserve.models import RefusedVersion, read_models
from convserve_protos import classifier_pb2
from tests.clients.scripted_server import PATIENCE_S, ScriptedServer, model
from tests.clients.test_retries import reserved_address
from tests.program import Program

# Asks more often than a person would want.
PROGRAM = (
    "import sys; from convserve.command import watching; from convserve.main import main;"
    "watching.EVERY_S = 0.02; sys.exit(main())"
)


def version(number: int, *labels: str, default: bool = False) -> classifier_pb2.Model:
    made = model("mnist", number)
    made.version_labels.extend(labels)
    made.default = default
    return made


def seen(*models: classifier_pb2.Model, refused: Sequence[tuple[int, str]] = ()) -> Seen:
    return Seen(
        read_models(classifier_pb2.ListModelsResponse(models=models)),
        [RefusedVersion(name="mnist", version=number, reason=reason) for number, reason in refused],
    )


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (seen(), seen(), []),
        (seen(version(1)), seen(version(1)), []),
        (seen(), seen(version(1)), ["mnist/1 is loaded"]),
        (
            seen(version(1, default=True)),
            seen(version(2, default=True), version(1)),
            ["mnist/2 is loaded", "mnist/2 answers calls that ask for no version"],
        ),
        (seen(version(2), version(1)), seen(version(2)), ["mnist/1 is unloaded"]),
        (
            seen(version(2), version(1, "stable")),
            seen(version(2, "canary", "stable"), version(1)),
            ["mnist/1 has no label any more", "mnist/2 has the labels canary, stable"],
        ),
        (seen(version(1)), seen(version(1, "a")), ["mnist/1 has the label a"]),
        (seen(), seen(refused=[(3, "garbage")]), ["mnist/3 is not served: garbage"]),
        (seen(refused=[(3, "a")]), seen(refused=[(3, "a")]), []),
        (seen(refused=[(3, "a")]), seen(refused=[(3, "b")]), ["mnist/3 is not served: b"]),
        (seen(refused=[(3, "a")]), seen(), ["mnist/3 is no longer refused"]),
        (seen(refused=[(3, "a")]), seen(version(3)), ["mnist/3 is loaded"]),
        # Such a reason cannot steer the terminal.
        (seen(), seen(refused=[(3, "\x1b[2J")]), ["mnist/3 is not served: \\x1b[2J"]),
    ],
)
def test_changes_are_one_line_each(before: Seen, after: Seen, lines: list[str]) -> None:
    assert [change.line() for change in changes(before, after)] == lines


def test_changes_are_objects_for_programs() -> None:
    before = seen(version(1, default=True))
    after = seen(version(2, "stable", default=True), refused=[(3, "garbage")])
    found = [json.loads(change.as_json()) for change in changes(before, after)]
    assert found == [
        {"model": "mnist", "version": 1, "event": "unloaded"},
        {"model": "mnist", "version": 2, "event": "loaded"},
        {"model": "mnist", "version": 2, "event": "default"},
        {"model": "mnist", "version": 2, "event": "labels", "labels": ["stable"]},
        {"model": "mnist", "version": 3, "event": "refused", "reason": "garbage"},
    ]


def watching(server: ScriptedServer, *arguments: str, **options: Any) -> Program[str]:
    command = [sys.executable, "-c", PROGRAM, "models", "--watch", "--server", server.address]
    return Program[str](
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def line_of(program: Program[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline()


def test_through_a_pipe_each_change_is_a_line_until_ctrl_c(server: ScriptedServer) -> None:
    server.models = [version(1, default=True)]
    with watching(server) as program:
        assert line_of(program)[8:] == " mnist/1 is loaded\n"
        assert line_of(program)[8:] == " mnist/1 answers calls that ask for no version\n"
        server.models = [version(2, default=True), version(1, "stable")]
        assert line_of(program)[8:] == " mnist/1 has the label stable\n"
        assert line_of(program)[8:] == " mnist/2 is loaded\n"
        assert line_of(program)[8:] == " mnist/2 answers calls that ask for no version\n"
        program.send_signal(signal.SIGINT)
        out, errors = program.communicate(timeout=PATIENCE_S)
        assert (out, errors, program.returncode) == ("", "", 130)


def test_json_lines_are_whole_and_come_at_once(server: ScriptedServer) -> None:
    with watching(server, "--format", "jsonl") as program:
        first = json.loads(line_of(program))
        assert first == {"model": "mnist", "version": 1, "event": "loaded"}
        server.models = []
        assert json.loads(line_of(program))["event"] == "unloaded"
        program.send_signal(signal.SIGTERM)
        assert program.wait(PATIENCE_S) == 143


def test_json_document_is_whole_after_ctrl_c(server: ScriptedServer) -> None:
    with watching(server, "--format", "json") as program:
        assert program.stdout is not None
        head = ""
        while not head.endswith("}"):
            head += program.stdout.read(1)
        # Right after it, an interrupt once left a document that was not whole.
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=PATIENCE_S)
        (change,) = json.loads(head + out)
        assert change["event"] == "loaded"


def test_server_that_is_gone_is_named_once_and_asked_again() -> None:
    with reserved_address() as address:
        server = ScriptedServer(address)
        with watching(server) as program:
            assert line_of(program)[8:] == " mnist/1 is loaded\n"
            server.stop()
            assert program.stderr is not None
            assert program.stderr.readline().startswith("convserve: ")
            back = ScriptedServer(address)
            try:
                back.models = [version(2)]
                assert line_of(program)[8:] == " mnist/1 is unloaded\n"
                assert line_of(program)[8:] == " mnist/2 is loaded\n"
            finally:
                back.stop()
            program.send_signal(signal.SIGINT)
            assert program.wait(PATIENCE_S) == 130


def test_server_that_was_never_there_is_exit_1(server: ScriptedServer) -> None:
    server.stop()
    with watching(server) as program:
        out, errors = program.communicate(timeout=PATIENCE_S)
        assert (out, program.returncode) == ("", 1)
        assert "cannot connect" in errors


def test_reader_that_is_gone_ends_it_at_the_next_change(server: ScriptedServer) -> None:
    with watching(server) as program:
        assert line_of(program)
        assert program.stdout is not None
        program.stdout.close()
        server.models = []
        assert program.wait(PATIENCE_S) == 141


def test_terminal_has_one_table_that_is_drawn_anew_after_a_change(
    server: ScriptedServer,
) -> None:
    server.models = [version(1, default=True)]
    server.refused = [classifier_pb2.RefusedVersion(name="mnist", version=9, reason="garbage")]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "models", "--watch", "--server", server.address]
    environment = os.environ | {"TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with Program[bytes](command, stdout=theirs, env=environment) as program:
        os.close(theirs)

        def screen(until: bytes) -> bytes:
            """What is drawn up to the end of a screen."""
            drawn = b""
            while until not in drawn:
                drawn += os.read(ours, 4096)
            return drawn

        first = screen(b"Ctrl-C ends")
        assert first.count(b"\x1b[H\x1b[2J") == 1
        assert b"mnist/9 is not served: garbage" in first
        server.models = [version(2, "stable", default=True)]
        second = screen(b"Ctrl-C ends")
        assert second.count(b"\x1b[H\x1b[2J") == 1
        assert b"stable" in second
        program.send_signal(signal.SIGINT)
        assert program.wait(PATIENCE_S) == 130
    os.close(ours)
