import json
import os
import signal
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from convserve.main import main
from convserve_imaging.digits import centre
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.scripted_server import (
    PATIENCE_S,
    ScriptedServer,
    answer,
    expected_label,
    model,
)
from tests.program import Program

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _server_in_environment(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)


def test_models_prints_a_table(server: ScriptedServer, capsys: Capture) -> None:
    server.models = [model("letters", 12), model("mnist", 3)]
    server.models[0].manifest.precision = bundle_pb2.PRECISION_FLOAT16
    server.models[0].default = True
    server.models[0].version_labels.extend(["canary", "stable"])
    assert main(["models"]) == 0
    head, letters, mnist = capsys.readouterr().out.splitlines()
    assert head.split() == [
        *("model", "version", "default", "labels", "kind", "input", "classes", "accuracy"),
        *("published", "precision", "runs", "on"),
    ]
    assert letters.split()[:6] == ["letters", "12", "yes", "canary,", "stable", "digits"]
    assert letters.split()[-2:] == ["float16", "CPU"]
    assert mnist.split() == [
        *("mnist", "3", "digits", "28x28x1", "10", "99.12%", "2026-01-02", "03:04"),
        *("float32", "CPU"),
    ]


@pytest.mark.parametrize("names", [[], ["a", "b"]], ids=["none", "two"])
def test_models_json_is_one_document(
    server: ScriptedServer, capsys: Capture, names: list[str]
) -> None:
    server.models = [model(name) for name in names]
    assert main(["models", "--format", "json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == names


def test_models_jsonl_holds_the_manifest(capsys: Capture) -> None:
    assert main(["models", "--format", "jsonl"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["name"], found["version"]) == ("mnist", 1)
    assert found["manifest"]["metrics"]["accuracy"] == 0.9912
    assert (found["default"], found["version_labels"]) == (False, [])


@pytest.mark.parametrize(
    ("service", "word", "status"),
    [("", "SERVING", 0), ("a.Down", "NOT_SERVING", 1), ("a.Absent", "SERVICE_UNKNOWN", 1)],
)
def test_health_prints_one_word_and_exits_by_it(
    server: ScriptedServer, capsys: Capture, service: str, word: str, status: int
) -> None:
    server.health["a.Down"] = health_pb2.HealthCheckResponse.NOT_SERVING
    assert main(["health", *([service] if service else [])]) == status
    assert capsys.readouterr() == (word + "\n", "")
    assert main(["health", service, "--format", "jsonl"]) == status
    assert json.loads(capsys.readouterr().out) == {"service": service, "status": word}


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("arguments", [["classify", "one.png"], ["models"], ["health"]])
def test_absent_server_is_one_line_and_exit_1(
    server: ScriptedServer, capsys: Capture, arguments: list[str]
) -> None:
    server.stop()
    assert main(arguments) == 1
    printed = capsys.readouterr()
    port = server.address.rpartition(":")[2]
    assert printed.out == ""
    assert printed.err == (
        f"convserve: cannot connect to {server.address}: Connection refused; is the server running?"
        f" Start it: convserve-serve --models models --port {port}\n"
    )


def test_timeout_holds(server: ScriptedServer, pictures: Path, capsys: Capture) -> None:
    release = threading.Event()

    def hang(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        assert release.wait(PATIENCE_S)
        return answer(request)

    server.answer = hang
    assert main(["classify", "--timeout", "0.2", str(pictures / "one.png")]) == 1
    assert f"no answer from {server.address} within 0.2 s" in capsys.readouterr().out
    release.set()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "COMMAND"),
        (["classify"], "PATH"),
        (
            ["classify", "--in-flight", "0", "a"],
            "--in-flight: expected an integer of 1 to 256, got '0'",
        ),
        (
            ["classify", "--in-flight", "257", "a"],
            "--in-flight: expected an integer of 1 to 256, got '257'",
        ),
        (["classify", "--top-k", "0", "a"], "--top-k: expected an integer of 1 or more, got '0'"),
        (
            ["classify", "--version", "x", "a"],
            "--version: expected an integer of 1 or more, got 'x'",
        ),
        (["models", "--timeout", "-1"], "--timeout: expected seconds above 0, got '-1'"),
        (["models", "--timeout", "soon"], "--timeout: expected seconds above 0, got 'soon'"),
        (
            ["health", "--server", "there"],
            "--server: expected HOST:PORT, as localhost:50051, got 'there'",
        ),
        (["models", "--format", "jsn"], "(did you mean json?)"),
        (["modles"], "(did you mean models?)"),
        (["models", "--sever", "a:1"], "(did you mean --server?)"),
        (["models", "--wait", "-1"], "--wait: expected seconds of 0 or more, got '-1'"),
        (["health", "--wait", "inf"], "--wait: expected seconds of 0 or more, got 'inf'"),
        (["classify", "--wait", "soon", "a"], "--wait: expected seconds of 0 or more, got 'soon'"),
        (["evaluate"], "DIR"),
        (["evaluate", "--min-accuracy", "99", "a"], "expected a share of 0 to 1, got '99'"),
        (["evaluate", "--min-accuracy", "nan", "a"], "expected a share of 0 to 1, got 'nan'"),
        (
            ["evaluate", "--in-flight", "0", "a"],
            "--in-flight: expected an integer of 1 to 256, got '0'",
        ),
    ],
)
def test_wrong_usage_exits_with_2(capsys: Capture, arguments: list[str], reason: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_wrong_server_in_the_environment_exits_with_2(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", "nowhere")
    with pytest.raises(SystemExit) as caught:
        main(["health"])
    assert caught.value.code == 2
    assert (
        "--server: expected HOST:PORT, as localhost:50051, got 'nowhere'" in capsys.readouterr().err
    )


def test_flag_goes_before_the_environment(
    server: ScriptedServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", "127.0.0.1:1")
    assert main(["health", "--server", server.address]) == 0
    assert capsys.readouterr().out == "SERVING\n"


@pytest.mark.parametrize("command", ["classify", "evaluate", "models", "health"])
def test_help_names_unit_default_variable_and_two_examples(capsys: Capture, command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--timeout S longest wait for the answer, in seconds [default: 10]" in printed
    assert "[default: localhost:50051] [env: CONVSERVE_SERVER]" in printed
    assert printed.split("examples:")[1].count(f"convserve {command}") == 2


def test_version_is_that_of_the_package(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"convserve {version('convserve')}\n"


PROGRAM = [sys.executable, "-c", "import sys; from convserve.main import main; sys.exit(main())"]


def test_interrupt_exits_with_130_and_no_traceback(server: ScriptedServer, pictures: Path) -> None:
    here, release = threading.Event(), threading.Event()

    def hang(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        here.set()
        assert release.wait(PATIENCE_S)
        return answer(request)

    server.answer = hang
    command = [*PROGRAM, "classify", str(pictures / "one.png")]
    with Program[bytes](command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert here.wait(PATIENCE_S)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=PATIENCE_S)
    release.set()
    assert (running.returncode, out, err) == (130, b"", b"")


def test_reader_that_went_away_is_no_traceback(pictures: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*PROGRAM, "classify", str(pictures / "one.png")]
    done = subprocess.run(
        command, stdout=write_end, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_terminal_of_few_characters_still_gets_its_answer(pictures: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "classify", str(pictures / "one.png")],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert expected_label(centre(str(pictures / "one.png"))) in done.stdout.decode("ascii")
