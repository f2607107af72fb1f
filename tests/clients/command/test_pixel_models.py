"""`convserve classify` and `evaluate` with a model of pixels, which are sent as they are."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve.main import main
from convserve_protos import bundle_pb2
from tests.clients.scripted_server import LABELS, ScriptedServer, expected_label, images_of, model
from tests.trainer.idx_files import encoded, labelled, write

Capture = pytest.CaptureFixture[str]
COUNTS = (30, 40, 20, 0, 10)  # as many of each class; more than a call holds


@pytest.fixture(autouse=True)
def _server_in_environment(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    server.models = [model("fashion", kind=bundle_pb2.IMAGE_KIND_PIXELS)]


def shoe() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_png_is_sent_as_it_is_and_found_in_a_folder(
    server: ScriptedServer, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "shoe.png").write_bytes(shoe())
    assert main(["classify", "--format", "jsonl", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == expected_label(
        np.frombuffer(shoe(), np.uint8)
    )
    assert [list(request.encoded.images) for request in server.requests] == [[shoe()]]


def test_show_is_for_digits(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "shoe.png").write_bytes(shoe())
    assert main(["classify", "--show", str(tmp_path / "shoe.png")]) == 1
    assert "--show: expected a model of digits, got fashion" in capsys.readouterr().err


def test_held_out_pictures_of_any_data_set_are_counted(
    server: ScriptedServer, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path, COUNTS, COUNTS, (28, 28), packed=True)
    assert main(["evaluate", "--format", "jsonl", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    images, labels = labelled(COUNTS, (28, 28), seed=2)
    right = [expected_label(image) == LABELS[n] for image, n in zip(images, labels, strict=True)]
    assert (found["right"], found["asked"]) == (sum(right), 100)
    sent = [image.tobytes() for request in server.requests for image in images_of(request)]
    assert sorted(sent) == sorted(image.tobytes() for image in images)


def test_pictures_that_do_not_fit_the_model_are_refused(
    server: ScriptedServer, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["evaluate", str(write(tmp_path))]) == 1
    assert capsys.readouterr().err == (
        f"convserve: {tmp_path}: expected pictures of 28 x 28 x 1 for model fashion, got"
        " 12 x 16 x 3\n"
    )
    write(tmp_path, (1, 1), (1, 1), (28, 28))
    labels = np.array([0, len(LABELS)], np.uint8)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(encoded(labels))
    assert main(["evaluate", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"expected labels of 0 to {len(LABELS) - 1} for model fashion (0, 1" in error
    assert error.endswith(f"), got {len(LABELS)}\n")
    assert server.requests == []
