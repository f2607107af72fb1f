"""`convserve classify`, `evaluate` and `health` where a server has several models."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from PIL import Image

from convserve.main import main
from convserve_imaging.mnist_files import HELD_OUT
from convserve_protos import bundle_pb2
from tests.clients.scripted_server import ScriptedServer, model
from tests.jpegs import folder, jpeg_of
from tests.trainer.idx_files import write

Capture = pytest.CaptureFixture[str]
PHOTO, PIXELS = bundle_pb2.IMAGE_KIND_PHOTO, bundle_pb2.IMAGE_KIND_PIXELS


@pytest.fixture(autouse=True)
def _server_in_environment(
    server: ScriptedServer, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server as the demo leaves it: digits, and photographs of ones and zeros."""
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)
    server.models = [
        model("mnist"),
        model("ones-and-zeros", kind=PHOTO, size=(64, 64, 3), labels=["ones", "zeros"]),
    ]


def asked(server: ScriptedServer) -> set[str]:
    return {request.model for request in server.requests}


def test_png_of_a_digit_goes_to_the_model_of_digits(server: ScriptedServer) -> None:
    assert main(["classify", "one.png"]) == 0
    assert asked(server) == {"mnist"}


def test_standard_input_is_read_once_though_it_decides(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO(Path("one.png").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    assert main(["classify", "-", "bar.png"]) == 0
    assert asked(server) == {"mnist"}
    assert len(server.requests) == 2


def test_jpeg_fits_digits_and_photographs_so_the_model_must_be_named(
    server: ScriptedServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("cat.jpg").write_bytes(jpeg_of("red"))
    assert main(["classify", "cat.jpg"]) == 1
    assert capsys.readouterr().err == (
        "convserve: model: expected a name, since 2 loaded models fit a JPEG file: mnist (digits,"
        " 28 x 28 x 1), ones-and-zeros (photo, 64 x 64 x 3); give one by model=NAME in Python,"
        " --model NAME, or CONVSERVE_MODEL\n"
    )
    assert server.requests == []
    monkeypatch.setenv("CONVSERVE_MODEL", "ones-and-zeros")
    assert main(["classify", "cat.jpg"]) == 0
    assert asked(server) == {"ones-and-zeros"}


def test_flag_goes_before_the_variable(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSERVE_MODEL", "ones-and-zeros")
    assert main(["classify", "one.png", "--model", "mnist"]) == 0
    assert asked(server) == {"mnist"}


def test_jpegs_of_a_folder_decide_and_its_pngs_only_without_them(
    server: ScriptedServer, capsys: Capture
) -> None:
    server.models[0] = model("shoes", kind=PIXELS)
    Path("set").mkdir()
    Path("one.png").rename("set/one.png")
    Path("set/two.jpg").write_bytes(jpeg_of("red"))
    assert main(["classify", "set"]) == 0
    assert asked(server) == {"ones-and-zeros"}
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("set/one.png")
    Path("set/two.jpg").unlink()
    server.requests.clear()
    assert main(["classify", "set"]) == 0
    assert asked(server) == {"shoes"}


def test_files_that_cannot_be_read_say_so_and_need_no_model(
    server: ScriptedServer, capsys: Capture
) -> None:
    Path("empty.png").write_bytes(b"")
    assert main(["classify", "absent.png", "empty.png", "--format", "jsonl"]) == 2
    rows = [json.loads(line)["error"] for line in capsys.readouterr().out.splitlines()]
    assert [row["reason"] for row in rows] == ["missing", "not-a-picture"]
    assert server.requests == []


@pytest.mark.parametrize(
    ("classes", "name"), [(("ones", "zeros"), "ones-and-zeros"), (("1", "7"), "mnist")]
)
def test_names_of_the_classes_decide_what_is_evaluated(
    server: ScriptedServer, classes: Sequence[str], name: str
) -> None:
    for label in classes:
        Path("set", label).mkdir(parents=True)
        picture = Image.new("L", (50, 70), 255)
        picture.paste(0, (20, 10, 26, 60))
        picture.save(Path("set", label, "a.jpg"))
    assert main(["evaluate", "set"]) == 0
    assert asked(server) == {name}


def test_digits_of_mnist_mean_the_model_of_digits(server: ScriptedServer, tmp_path: Path) -> None:
    server.models.append(model("shoes", kind=PIXELS))
    for file in HELD_OUT:
        (tmp_path / f"{file.name}.gz").symlink_to(folder("mnist") / f"{file.name}.gz")
    assert main(["evaluate", str(tmp_path)]) == 0
    assert asked(server) == {"mnist"}


def test_pictures_of_another_data_set_mean_the_model_of_pixels_of_their_size(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.models += [model("shoes", kind=PIXELS), model("tall", kind=PIXELS, size=(40, 20, 3))]
    write(tmp_path, (3, 4), (3, 4), (28, 28))
    assert main(["evaluate", str(tmp_path)]) == 0
    assert asked(server) == {"shoes"}


def test_health_of_a_model_is_asked_by_its_name_and_not_by_the_variable(
    server: ScriptedServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = health_pb2.HealthCheckResponse
    server.health = {"": status.SERVING, "mnist": status.NOT_SERVING}
    monkeypatch.setenv("CONVSERVE_MODEL", "mnist")
    assert main(["health", "--format", "jsonl"]) == 0
    assert main(["health", "--model", "mnist", "--format", "jsonl"]) == 1
    reported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert reported == [
        {"service": "", "status": "SERVING"},
        {"service": "mnist", "status": "NOT_SERVING"},
    ]
    with pytest.raises(SystemExit, match="2"):
        main(["health", "a.Service", "--model", "mnist"])
