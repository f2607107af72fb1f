"""`convserve classify` with a model of digits, which are centred before they are sent."""

import io
import json
from pathlib import Path

import grpc
import pytest

from convserve.main import main
from convserve_imaging.digits import centre
from convserve_protos import classifier_pb2
from tests.clients.scripted_server import (
    Failure,
    ScriptedServer,
    answer,
    expected_label,
    expected_probability,
    model,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _server_in_environment(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSERVE_SERVER", server.address)


def percent(file: str) -> str:
    return f"{expected_probability(centre(file)):.1%}"


@pytest.mark.usefixtures("pictures")
def test_classify_prints_label_probability_and_bar(capsys: Capture) -> None:
    assert main(["classify", "one.png", "bar.png"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("2 classified (")
    for line, file in zip(printed.out.splitlines(), ["one.png", "bar.png"], strict=True):
        name, label, probability, bar = line.split()
        assert (name, label) == (file, expected_label(centre(file)))
        assert probability == percent(file)
        assert bar.startswith("█" * 10)


@pytest.mark.usefixtures("pictures")
def test_classify_names_bad_files_and_answers_the_others(capsys: Capture) -> None:
    assert main(["classify", "blank.png", "one.png", "notes.txt", "absent.png"]) == 2
    printed = capsys.readouterr()
    blank, one, notes, absent = (line.split(maxsplit=2) for line in printed.out.splitlines())
    assert blank[:2] == ["blank.png", "-"]
    assert blank[2].startswith("error: the picture is blank")
    assert one[:2] == ["one.png", expected_label(centre("one.png"))]
    assert notes[2].startswith("error: not a picture")
    assert absent == ["absent.png", "-", "error: No such file or directory"]
    assert "1 classified" in printed.err
    assert "3 failed (1 blank, 1 not-a-picture, 1 missing)" in printed.err


@pytest.mark.usefixtures("pictures")
def test_classify_reads_the_pngs_of_a_folder(capsys: Capture) -> None:
    assert main(["classify", "."]) == 1
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["./bar.png", "./blank.png", "./one.png"]


@pytest.mark.usefixtures("pictures")
def test_classify_asks_nobody_what_is_on_a_blank_sheet(server: ScriptedServer) -> None:
    assert main(["classify", "blank.png"]) == 1
    assert (len(server.requests), server.lists) == (0, 1)


@pytest.mark.usefixtures("pictures")
def test_classify_prints_what_the_server_answers_about_one_image(
    server: ScriptedServer, capsys: Capture
) -> None:
    bar = centre("bar.png").tobytes()

    def bar_fails(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
        if request.pixels.data == bar:
            raise Failure(grpc.StatusCode.INTERNAL, "failed, id 00ff00ff00ff")
        return answer(request)

    server.answer = bar_fails
    assert main(["classify", "one.png", "bar.png"]) == 1
    printed = capsys.readouterr()
    one_row, bar_row = printed.out.splitlines()
    assert one_row.startswith("one.png")
    assert bar_row.split(maxsplit=2)[2] == "error: failed, id 00ff00ff00ff"


@pytest.mark.usefixtures("pictures")
def test_classify_top_k_prints_a_line_for_each_class(
    server: ScriptedServer, capsys: Capture
) -> None:
    server.models = [model("mnist"), model("m", 6), model("m", 5)]
    assert main(["classify", "--top-k", "3", "--version", "5", "--model", "m", "one.png"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("one.png")
    assert [line[:7] for line in others] == [" " * 7] * 2
    request = server.requests[0]
    assert (request.model, request.version, request.top_k) == ("m", 5, 3)


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("names", [["one.png"], ["one.png", "blank.png"]], ids=["one", "two"])
def test_classify_json_is_one_document_of_the_same_objects(
    capsys: Capture, names: list[str]
) -> None:
    main(["classify", "--format", "json", *names])
    found = json.loads(capsys.readouterr().out)
    assert [each["file"] for each in found] == names
    main(["classify", "--format", "jsonl", *names])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for each in (*found, *lines):
        each.pop("timings_us", None)
    assert found == lines


@pytest.mark.usefixtures("pictures")
def test_classify_jsonl_is_an_object_a_line(capsys: Capture) -> None:
    arguments = ["classify", "--format", "jsonl", "--top-k", "2", "one.png", "blank.png"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    good, bad = (json.loads(line) for line in printed.out.splitlines())
    expected = pytest.approx(expected_probability(centre("one.png")))
    assert good["classes"][0] == {"label": good["label"], "probability": good["probability"]}
    assert len(good.pop("classes")) == 2
    timings = good.pop("timings_us")
    assert timings.pop("total") > 0
    assert timings == {"queue": 100, "decode": 0, "compute": 10}
    assert good == {
        "file": "one.png",
        "label": expected_label(centre("one.png")),
        "probability": expected,
        "model": "mnist",
        "version": 7,
    }
    assert bad["error"].pop("message").startswith("the picture is blank")
    assert bad == {"file": "blank.png", "error": {"code": None, "reason": "blank"}}


def test_classify_reads_standard_input(
    pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (pictures / "one.png").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["classify", "-"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["-", expected_label(centre(data))]


@pytest.mark.usefixtures("pictures")
def test_classify_show_draws_the_centred_digit(capsys: Capture) -> None:
    assert main(["classify", "--show", "one.png"]) == 0
    *drawing, row = capsys.readouterr().out.splitlines()
    assert [len(line) for line in drawing] == [28] * 14
    assert "█" in drawing[7]
    assert drawing[0].strip() == drawing[13].strip() == ""
    assert row.startswith("one.png")
