"""`convserve evaluate` over MNIST's held-out digits."""

import gzip
import json
import threading
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import pytest

from convserve.command.tally import PATIENCE_FILES
from convserve.main import main
from convserve_imaging import mnist_files
from convserve_imaging.mnist_files import HELD_OUT, TEST_IMAGES, TEST_LABELS
from convserve_protos import bundle_pb2, classifier_pb2
from tests.clients.scripted_server import (
    Failure,
    ScriptedServer,
    answer,
    expected_label,
    images_of,
    model,
)
from tests.jpegs import folder

Capture = pytest.CaptureFixture[str]
COUNT = 10_000
PER_CALL = 64


@pytest.fixture(autouse=True)
def _server_in_environment(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """A folder with the two files alone."""
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    for file in HELD_OUT:
        (held_out / f"{file.name}.gz").symlink_to(folder("mnist") / f"{file.name}.gz")
    return held_out


def digits(held_out: Path) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], list[str]]:
    contents = mnist_files.read_folder(held_out, HELD_OUT)
    images, labels = (mnist_files.verified(f, contents[f.name], f.name) for f in HELD_OUT)
    return images, [str(label) for label in labels]


def evaluated(capsys: Capture, *arguments: str) -> tuple[int, dict[str, object]]:
    status = main(["evaluate", "--format", "jsonl", *arguments])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return status, found


def test_every_digit_is_sent_once_and_counted_under_its_label(
    server: ScriptedServer, held_out: Path, capsys: Capture
) -> None:
    images, labels = digits(held_out)
    answers = [expected_label(image) for image in images]
    status, found = evaluated(capsys, str(held_out))
    assert status == 0
    right = sum(label == answered for label, answered in zip(labels, answers, strict=True))
    assert (found["right"], found["answered"], found["asked"]) == (right, COUNT, COUNT)
    pairs = Counter(zip(labels, answers, strict=True))
    classes = found["classes"]
    assert isinstance(classes, list)
    for row in classes:
        counts = row["taken_for"] | {row["label"]: row["right"]}
        assert counts == {
            answer: n for (label, answer), n in pairs.items() if label == row["label"]
        }
    sent = Counter(image.tobytes() for request in server.requests for image in images_of(request))
    assert sent == Counter(image.tobytes() for image in images)


def test_calls_are_small_and_of_one_version_each(
    server: ScriptedServer, held_out: Path, capsys: Capture
) -> None:
    def newer_each_time(
        request: classifier_pb2.ClassifyRequest,
    ) -> classifier_pb2.ClassifyResponse:
        response = answer(request)
        response.version = len(server.requests)
        if response.version > 50:  # As if somebody had renamed a class in the new version.
            response.labels[0] = "zero"
        return response

    server.answer = newer_each_time
    status, found = evaluated(capsys, str(held_out), "--in-flight", "4")
    assert status == 0
    calls = -(-COUNT // PER_CALL)
    assert {request.pixels.count for request in server.requests} == {PER_CALL, COUNT % PER_CALL}
    assert len(server.requests) == calls
    assert server.most_in_flight <= 4
    versions = found["versions"]
    assert isinstance(versions, list)
    assert versions[0] == calls


def test_unpacked_files_are_accepted_too(held_out: Path, capsys: Capture) -> None:
    path = held_out / f"{TEST_LABELS.name}.gz"
    (held_out / TEST_LABELS.name).write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert evaluated(capsys, str(held_out))[1]["asked"] == COUNT


def test_call_without_an_answer_costs_its_digits_alone(
    server: ScriptedServer, held_out: Path, capsys: Capture
) -> None:
    lock, seen = threading.Lock(), [0]

    def fail_third(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        with lock:
            seen[0] += 1
            third = seen[0] == 3
        if third:
            raise Failure(grpc.StatusCode.INTERNAL, "failed, id 00ff00ff00ff")
        return answer(request)

    server.answer = fail_third
    assert main(["evaluate", str(held_out)]) == 1
    out = capsys.readouterr().out
    assert f"without answer  {PER_CALL} of 10,000 ({PER_CALL} server-fault)\n" in out
    assert f"  and {PER_CALL - 10} more\n" in out
    assert f"{TEST_IMAGES.name}[" in out


def test_server_without_answers_is_given_up(
    server: ScriptedServer, held_out: Path, capsys: Capture
) -> None:
    def fail(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        raise Failure(grpc.StatusCode.INTERNAL, "failed, id 00ff00ff00ff")

    server.answer = fail
    assert main(["evaluate", str(held_out), "--in-flight", "1"]) == 1
    assert f"stopped, since {PATIENCE_FILES * PER_CALL} files in a row" in capsys.readouterr().err
    assert PATIENCE_FILES <= len(server.requests) <= 2 * PATIENCE_FILES


def messages(capsys: Capture, path: Path) -> str:
    assert main(["evaluate", str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_one_file_alone_is_reported(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / TEST_LABELS.name).write_bytes(b"")
    line = messages(capsys, tmp_path)
    assert line.startswith(f"convserve: {tmp_path}: expected one of {TEST_IMAGES.name}, ")


def test_damaged_file_is_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / f"{TEST_IMAGES.name}.gz").write_bytes(gzip.compress(b"<html>"))
    (tmp_path / TEST_LABELS.name).write_bytes(b"")
    line = messages(capsys, tmp_path)
    assert line.startswith(f"convserve: {tmp_path}: {TEST_IMAGES.name}: expected an IDX file of ")
    assert ", got 3c68746d" in line


def test_changed_digits_are_refused(
    server: ScriptedServer, held_out: Path, capsys: Capture
) -> None:
    path = held_out / f"{TEST_LABELS.name}.gz"
    changed = gzip.decompress(path.read_bytes())[:-1] + b"\1"
    path.unlink()
    path.write_bytes(gzip.compress(changed))
    assert f"{TEST_LABELS.name}: expected SHA-256" in messages(capsys, held_out)
    assert server.requests == []


def test_model_of_other_pictures_is_refused(
    server: ScriptedServer, tmp_path: Path, capsys: Capture
) -> None:
    server.models = [model("cats-dogs", kind=bundle_pb2.IMAGE_KIND_PHOTO)]
    size = server.models[0].manifest.input
    size.height, size.width, size.channels = 150, 100, 3
    for file in HELD_OUT:
        (tmp_path / file.name).write_bytes(b"")
    assert messages(capsys, tmp_path) == (
        f"convserve: {tmp_path}: expected pictures of 150 x 100 x 3 for model cats-dogs, got"
        " MNIST's 10,000 held-out digits of 28 x 28 x 1"
    )


def test_model_of_other_labels_is_refused(
    server: ScriptedServer, tmp_path: Path, capsys: Capture
) -> None:
    del server.models[0].manifest.labels[2:]
    for file in HELD_OUT:
        (tmp_path / file.name).write_bytes(b"")
    assert messages(capsys, tmp_path) == (
        f"convserve: {tmp_path}: expected labels of model mnist (0, 1), got 2 in"
        " MNIST's 10,000 held-out digits of 28 x 28 x 1"
    )
