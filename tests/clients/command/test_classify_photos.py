import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from convserve.command import file_classifier
from convserve.main import main
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.scripted_server import (
    BROKEN,
    PATIENCE_S,
    ScriptedServer,
    answer,
    expected_label,
    model,
)

Capture = pytest.CaptureFixture[str]
FILES = 40


@pytest.fixture(autouse=True)
def _server_in_environment(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    server.models = [model("cats-dogs", kind=bundle_pb2.IMAGE_KIND_PHOTO)]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files 00.jpg to 39.jpg, no two alike, in place of JPEGs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:02}.jpg").write_bytes(content(number))
    monkeypatch.chdir(tmp_path)
    return folder


def content(number: int) -> bytes:
    return f"{number:02}".encode() * (number + 1)


def number_of(request: classifier_pb2.ClassifyRequest) -> int:
    (data,) = request.encoded.images
    return int(data[:2])


def label_of(data: bytes) -> str:
    return expected_label(np.frombuffer(data, np.uint8))


def run_jsonl(capsys: Capture, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    status = main(["classify", "--format", "jsonl", *arguments])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_files_are_sent_as_they_are_one_in_a_call_and_printed_in_order(
    server: ScriptedServer, photos: Path, capsys: Capture
) -> None:
    status, rows = run_jsonl(capsys, "photos")
    assert status == 0
    assert [row["file"] for row in rows] == [f"photos/{number:02}.jpg" for number in range(FILES)]
    assert [row["label"] for row in rows] == [label_of(content(number)) for number in range(FILES)]
    sent = sorted(bytes(data) for request in server.requests for data in request.encoded.images)
    assert sent == sorted(file.read_bytes() for file in photos.iterdir())
    assert len(server.requests) == FILES


@pytest.mark.usefixtures("photos")
def test_order_holds_when_later_answers_come_first(server: ScriptedServer, capsys: Capture) -> None:
    others = threading.Semaphore(0)

    def first_last(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        if number_of(request) == 0:
            for _ in range(15):  # As many as fit the window beside it.
                assert others.acquire(timeout=PATIENCE_S)
        else:
            others.release()
        return answer(request)

    server.answer = first_last
    _, rows = run_jsonl(capsys, "photos", "--in-flight", "4")
    assert [row["file"] for row in rows] == [f"photos/{number:02}.jpg" for number in range(FILES)]


@pytest.mark.usefixtures("photos")
def test_as_many_calls_as_asked_for_are_in_flight_and_never_more(
    server: ScriptedServer, capsys: Capture
) -> None:
    together = threading.Barrier(5)

    def wait_for_four_others(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        together.wait(PATIENCE_S)  # Breaks unless five calls are here at once.
        return answer(request)

    server.answer = wait_for_four_others
    assert run_jsonl(capsys, "photos", "--in-flight", "5")[0] == 0
    assert server.most_in_flight == 5


@pytest.mark.usefixtures("photos")
def test_row_in_json_says_model_version_classes_and_times(capsys: Capture) -> None:
    _, (row,) = run_jsonl(capsys, "photos/07.jpg", "--top-k", "2")
    timings = row.pop("timings_us")
    assert isinstance(timings, dict)
    assert timings.pop("total") > 0
    assert timings == {"queue": 100, "decode": 1000, "compute": 10}
    classes = row.pop("classes")
    assert isinstance(classes, list)
    assert classes[0] == {"label": row["label"], "probability": row["probability"]}
    assert len(classes) == 2
    assert (row.pop("file"), row.pop("label")) == ("photos/07.jpg", label_of(content(7)))
    assert 0.5 <= row.pop("probability") <= 1  # type: ignore[operator]
    assert row == {"model": "cats-dogs", "version": 7}


def test_only_the_best_class_is_asked_for_unless_more_are_wanted(
    server: ScriptedServer, photos: Path, capsys: Capture
) -> None:
    _, (row,) = run_jsonl(capsys, str(photos / "01.jpg"))
    assert "classes" not in row
    assert server.requests[0].top_k == 1


def test_each_bad_file_is_named_with_its_reason_and_the_others_are_answered(
    photos: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_classifier, "MAX_FILE_BYTES", 6 * 2**20)
    (photos / "00.jpg").write_bytes(BROKEN)
    (photos / "01.jpg").write_bytes(b"")
    (photos / "02.jpg").write_bytes(bytes(5 * 2**20))  # Over the limit of the server,
    (photos / "03.jpg").write_bytes(bytes(7 * 2**20))  # and over that of the command.
    (photos / "04.jpg").unlink()
    (photos / "04.jpg").symlink_to("nothing")
    status, rows = run_jsonl(capsys, "photos", "absent.jpg")
    assert status == 2
    errors = {row["file"]: row["error"] for row in rows if "error" in row}
    assert [row["file"] for row in rows[:5]] == list(errors)[:5]
    messages = [list(error.values()) for error in errors.values()]  # type: ignore[attr-defined]
    assert messages[0] == ["INVALID_ARGUMENT", "truncated", "the JPEG is truncated"]
    assert messages[1] == [None, "not-a-picture", "not a picture: the file is empty"]
    assert messages[2][:2] == ["RESOURCE_EXHAUSTED", "message-too-large"]
    assert messages[3] == [None, "message-too-large", "the file is larger than 6 MiB"]
    assert messages[4] == [None, "missing", "No such file or directory"]
    assert errors["absent.jpg"] == errors["photos/04.jpg"]
    assert len(messages) == 6
    assert sum("label" in row for row in rows) == FILES - 5


def test_table_shows_answers_and_errors_in_their_order_and_sums_up(
    photos: Path, capsys: Capture
) -> None:
    (photos / "01.jpg").write_bytes(BROKEN)
    named = [f"photos/{number:02}.jpg" for number in range(3)]
    assert main(["classify", *named, "--no-progress"]) == 1
    printed = capsys.readouterr()
    first, second, third = printed.out.splitlines()
    assert second == "photos/01.jpg  -  error: the JPEG is truncated"
    for line, number in ((first, 0), (third, 2)):
        file, label, probability, bar = line.split()
        assert (file, label) == (f"photos/{number:02}.jpg", label_of(content(number)))
        assert probability.endswith("%")
        assert bar
    (summary,) = printed.err.splitlines()
    assert summary.startswith("2 classified (1 ")
    assert ", 1 failed (1 truncated), " in summary
    assert summary.endswith(" images/s")


def test_standard_input_is_one_picture(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"picture")))
    _, (row,) = run_jsonl(capsys, "-")
    assert (row["file"], row["label"]) == ("-", label_of(b"picture"))


def test_named_pipe_is_read_to_its_end(tmp_path: Path, capsys: Capture) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"picture" * 50_000,))
    writer.start()
    _, (row,) = run_jsonl(capsys, str(pipe))
    writer.join(PATIENCE_S)
    assert row["label"] == label_of(b"picture" * 50_000)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "cats"], "model cats is not loaded; there is cats-dogs/1"),
        (["--version", "2"], "model cats-dogs/2 is not loaded; there is cats-dogs/1"),
        (["--show"], "--show: expected a model of digits, got cats-dogs"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_what_no_file_can_have_is_one_line_before_any_is_sent(
    server: ScriptedServer, capsys: Capture, arguments: list[str], reason: str
) -> None:
    assert main(["classify", "photos", *arguments]) == 1
    assert capsys.readouterr() == ("", f"convserve: {reason}\n")
    assert server.requests == []


def test_name_of_a_file_cannot_steer_the_terminal(photos: Path, capsys: Capture) -> None:
    evil = os.fsdecode(b"a\x1b[2J\nb\xff.jpg")
    (photos / evil).write_bytes(b"x")
    assert main(["classify", f"photos/{evil}"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(r"photos/a\x1b[2J\nb\udcff.jpg  ")
    _, (row,) = run_jsonl(capsys, f"photos/{evil}")
    assert row["file"] == f"photos/{evil}"


def test_photographs_bring_neither_pillow_nor_a_progress_bar(photos: Path) -> None:
    program = (
        "import sys; from convserve.main import main; status = main(sys.argv[1:]);"
        "print(sorted({'PIL', 'tqdm'} & set(sys.modules))); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "classify", str(photos)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
