"""`convserve evaluate` over a folder of classes."""

import json
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from convserve.command.tally import PATIENCE_FILES
from convserve.main import main
from convserve_imaging.digits import centre
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.scripted_server import BROKEN, PATIENCE_S, Failure, ScriptedServer, answer, model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _server_in_environment(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    monkeypatch.chdir(tmp_path)
    server.models = [model("ten", kind=bundle_pb2.IMAGE_KIND_PHOTO)]


def write(label: str, *answers: int) -> None:
    """Files of a class, each in place of a JPEG, answered so."""
    folder = Path("set") / label
    folder.mkdir(parents=True, exist_ok=True)
    for index, number in enumerate(answers):
        # The server of these tests answers the sum of the bytes, modulo 10.
        (folder / f"{index:03}.jpg").write_bytes(bytes([100 + number]) + b"\n" * index)


def test_folders_are_named_as_labels_however_accents_are_written(
    server: ScriptedServer, capsys: Capture
) -> None:
    labels = list(server.models[0].manifest.labels)
    server.models[0].manifest.labels[:] = ["caf\u00e9", *labels[1:]]
    write("cafe\u0301", 0, 0)
    Path("set/__MACOSX").mkdir()
    assert main(["evaluate", "set"]) == 0
    printed = capsys.readouterr().out
    # The server of these tests answers with its own labels.
    assert "right answers   0 of 2" in printed
    assert printed.splitlines()[-1].startswith("caf\u00e9 "), "the model's way of writing it"


def test_table_says_how_many_are_right_and_what_the_others_were_taken_for(
    capsys: Capture,
) -> None:
    write("7", 7, 7, 1, 1, 9)
    write("0", 0, 0, 0)
    write("3", 8)
    assert main(["evaluate", "set"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    head, rest = printed.out.split("\n\n")
    assert head.splitlines()[:2] == [
        "model           ten, version 7",
        "right answers   5 of 9 (55.56%)",
    ]
    assert [line.split()[0] for line in head.splitlines()] == ["model", "right", "images/s"]
    assert [line.split() for line in rest.splitlines()] == [
        ["class", "right", "asked", "most", "often", "taken", "for"],
        ["0", "3", "3", "100.00%"],
        ["3", "0", "1", "0.00%", "8", "(1)"],
        ["7", "2", "5", "40.00%", "1", "(2)"],
    ]


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_json_is_one_object_with_all_counts(capsys: Capture, form: str) -> None:
    write("7", 7, 7, 1, 1, 9)
    write("0", 0)
    assert main(["evaluate", "set", "--format", form]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found.pop("seconds") > 0
    assert found.pop("accuracy") == pytest.approx(0.5)
    zero = {"label": "0", "right": 1, "answered": 1, "asked": 1, "taken_for": {}}
    seven = {"label": "7", "right": 2, "answered": 5, "asked": 5, "taken_for": {"1": 2, "9": 1}}
    assert found == {
        "model": "ten",
        "versions": [7],
        "right": 3,
        "answered": 6,
        "asked": 6,
        "failures": {},
        "classes": [zero, seven],
    }


def test_file_without_an_answer_is_named_with_its_reason_and_is_exit_1(capsys: Capture) -> None:
    write("7", 7, 7, 1)
    Path("set/7/001.jpg").write_bytes(BROKEN)
    Path("set/7/009.jpg").symlink_to("nothing")
    assert main(["evaluate", "set"]) == 1
    head, rest = capsys.readouterr().out.split("\n\n")
    assert head.splitlines()[1:5] == [
        "right answers   1 of 2 (50.00%)",
        "without answer  2 of 4 (1 truncated, 1 missing)",
        "  set/7/001.jpg: the JPEG is truncated",
        "  set/7/009.jpg: No such file or directory",
    ]
    assert [line.split()[:5] for line in rest.splitlines()] == [
        ["class", "right", "answered", "asked", "most"],
        ["7", "1", "2", "4", "50.00%"],
    ]


def test_nothing_answered_at_all_is_reported_without_an_accuracy(capsys: Capture) -> None:
    write("7", 7)
    Path("set/7/000.jpg").write_bytes(BROKEN)
    assert main(["evaluate", "set"]) == 1
    assert "right answers   0 of 0\n" in capsys.readouterr().out
    assert main(["evaluate", "set", "--format", "jsonl", "--min-accuracy", "0"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["accuracy"] is None
    assert printed.err == "convserve: --min-accuracy: expected at least 0, got no answer\n"


@pytest.mark.parametrize(("least", "status"), [("0.5", 0), ("0.51", 1), ("1", 1), ("0", 0)])
def test_low_accuracy_fails_only_if_more_was_asked_for(
    capsys: Capture, least: str, status: int
) -> None:
    write("7", 7, 1)
    assert main(["evaluate", "set", "--min-accuracy", least]) == status
    printed = capsys.readouterr()
    assert "1 of 2 (50.00%)" in printed.out
    expected = f"convserve: --min-accuracy: expected at least {least}, got 0.5000"
    assert printed.err == (expected + "\n" if status else "")


def test_versions_that_answered_are_all_named(server: ScriptedServer, capsys: Capture) -> None:
    def newer_after_ten(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        response = answer(request)
        response.version = 1 if len(server.requests) <= 10 else 2
        return response

    server.answer = newer_after_ten
    write("7", *[7] * 20)
    assert main(["evaluate", "set"]) == 0
    assert "model           ten, versions 2, 1\n" in capsys.readouterr().out
    server.requests.clear()
    assert main(["evaluate", "set", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == [2, 1]


def test_named_model_and_version_are_asked(server: ScriptedServer, capsys: Capture) -> None:
    photo = bundle_pb2.IMAGE_KIND_PHOTO
    server.models = [model("ten", 6, photo), model("ten", 5, photo), model("other", 9, photo)]
    write("7", 7)
    assert main(["evaluate", "set", "--model", "ten", "--version", "5"]) == 0
    (request,) = server.requests
    assert (request.model, request.version, request.top_k) == ("ten", 5, 1)
    assert main(["evaluate", "set"]) == 1
    assert capsys.readouterr().err == (
        "convserve: model: expected a name, since 2 loaded models fit the labelled pictures in set:"
        " ten (photo, 28 x 28 x 1), other (photo, 28 x 28 x 1); give one by model=NAME in Python,"
        " --model NAME, or CONVSERVE_MODEL\n"
    )


def test_digits_are_centred_and_pngs_accepted(server: ScriptedServer, capsys: Capture) -> None:
    server.models = [model("mnist")]
    sheet = np.full((60, 50), 255, np.uint8)
    sheet[10:50, 22:28] = 0
    Path("set/1").mkdir(parents=True)
    Image.fromarray(sheet).save("set/1/one.png")
    assert main(["evaluate", "set"]) == 0
    (request,) = server.requests
    assert request.pixels.data == centre("set/1/one.png").tobytes()
    assert "images/s" in capsys.readouterr().out


def test_as_many_files_as_asked_for_are_in_flight(server: ScriptedServer) -> None:
    together = threading.Barrier(5)

    def wait_for_four_others(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        together.wait(PATIENCE_S)  # Breaks unless five calls are here at once.
        return answer(request)

    server.answer = wait_for_four_others
    write("7", *[7] * 40)
    assert main(["evaluate", "set", "--in-flight", "5"]) == 0
    assert server.most_in_flight == 5


def empty() -> None:
    Path("set").mkdir()


def loose_file() -> None:
    Path("set").mkdir()
    Path("set/cat.jpg").write_bytes(b"picture")


def hidden_folder() -> None:
    Path("set/.git").mkdir(parents=True)


def plain_file() -> None:
    Path("set").write_bytes(b"picture")


EXPECTED = (
    "set: expected a folder for each class, set/CLASS/*.jpg, or MNIST's t10k-images-idx3-ubyte and"
    " t10k-labels-idx1-ubyte"
)


@pytest.mark.parametrize(
    ("make", "status", "got"),
    [
        (lambda: None, 2, "nothing"),
        (plain_file, 1, "a file"),
        (empty, 1, "an empty folder"),
        (loose_file, 1, "no labelled pictures"),
        (hidden_folder, 1, "no labelled pictures"),
    ],
)
def test_folder_of_neither_layout_is_one_line_that_says_what_was_expected(
    server: ScriptedServer, capsys: Capture, make: object, status: int, got: str
) -> None:
    assert callable(make)
    make()
    assert main(["evaluate", "set"]) == status
    assert capsys.readouterr() == ("", f"convserve: {EXPECTED}, got {got}\n")
    assert server.lists == 0


def test_folder_that_is_no_label_is_named_with_the_labels(
    server: ScriptedServer, capsys: Capture
) -> None:
    write("7", 7)
    write("cat", 3)
    assert main(["evaluate", "set"]) == 1
    labels = ", ".join(str(digit) for digit in range(10))
    assert capsys.readouterr() == (
        "",
        f"convserve: set/cat: expected a label of model ten ({labels}), got cat\n",
    )
    assert server.requests == []


def test_class_without_pictures_is_named(server: ScriptedServer, capsys: Capture) -> None:
    write("7", 7)
    Path("set/3").mkdir()
    Path("set/3/drawing.png").write_bytes(b"no JPEG")
    assert main(["evaluate", "set"]) == 1
    message = "convserve: set/3: no pictures in this folder (.jpg, .jpeg, .jpe, .jfif)\n"
    assert capsys.readouterr() == ("", message)
    assert server.requests == []


def test_server_that_stops_answering_ends_the_run_and_prints_no_score(
    server: ScriptedServer, capsys: Capture
) -> None:
    def fail_from_ten(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        if len(request.encoded.images[0]) > 10:
            raise Failure(grpc.StatusCode.INTERNAL, "no engine, id 00ff00ff00ff")
        return answer(request)

    server.answer = fail_from_ten
    write("7", *[7] * (PATIENCE_FILES + 30))
    assert main(["evaluate", "set"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    so_far, reason = printed.err.splitlines()
    assert so_far.startswith("so far 10 right, 10 classified (10 7), 32 failed")
    assert f"stopped, since {PATIENCE_FILES} files in a row had no answer" in reason
    assert main(["evaluate", "set", "--format", "jsonl"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("convserve: stopped, since")


def test_label_cannot_steer_the_terminal(server: ScriptedServer, capsys: Capture) -> None:
    evil = "a\x1b[2J"
    server.models[0].manifest.labels[7] = evil
    write(evil, 7)
    assert main(["evaluate", "set"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_model_of_several_labels_is_judged_elsewhere(
    server: ScriptedServer, capsys: Capture
) -> None:
    write("7", 7)
    server.models[0].manifest.thresholds.extend([0.5] * 10)
    assert main(["evaluate", "set", "--model", "ten"]) == 1
    error = capsys.readouterr().err
    assert "model ten: expected one whose pictures have one label, got one whose pictures" in error
    assert "convserve-train evaluate judges that" in error
