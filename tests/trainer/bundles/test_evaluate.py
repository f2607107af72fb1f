"""The command evaluate: what it prints, and the page that it writes."""

import html
import json
import re
from pathlib import Path

import pytest

from convserve_trainer.main import main
from tests.trainer.bundles.pixel_digits import digits, pixel_bundle
from tests.trainer.lecture.test_lecture import Page


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Judges a bundle that takes four zeros for ones."""
    folder = digits(tmp_path / "digits", wrong=4)
    return ["evaluate", str(pixel_bundle(tmp_path / "models")), "--data", str(folder)]


def test_evaluate_prints_tables_of_classes_intervals_and_mistakes(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "accuracy 0.9000 (36 of 40 right)\n\nEach class against the rest\n" in output
    rows = [line.split() for line in output.splitlines()]
    assert ["0", "4", "–", "0.0000", "0.0000", "0.5000", "1", "(4)"] in rows
    assert ["1", "4", "0.5000", "1.0000", "0.6667", "0.9444", "none"] in rows
    assert ["0", "1", "4", "100.00%"] in rows
    changed = output.partition("\nPictures that are changed on purpose\n")[2].splitlines()
    assert [line.split("  ")[0] for line in changed[1:]] == [
        *("nothing", "shifted by 4 pixels", "turned by 20 degrees", "inverted", "low contrast"),
        "grey ground",
    ]


def test_evaluate_prints_json_with_all_figures(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bundle"] == f"{command[1]}/model.onnx"
    assert found["confusions"] == [{"true": "0", "answered": "1", "count": 4}]
    zero, one = found["classes"][:2]
    assert (zero["label"], zero["precision"], zero["recall"]) == ("0", None, 0.0)
    assert one["roc_auc"] == pytest.approx(34 / 36)
    assert one["f1"] == pytest.approx(2 / 3)
    assert one["f1_interval"][0] < one["f1"] < one["f1_interval"][1]
    assert found["macro"]["f1_interval"][0] < found["macro"]["f1"]
    inverted = found["corruptions"][2]
    assert (inverted["change"], inverted["pictures"]) == ("inverted", 40)
    assert inverted["interval"][0] <= inverted["accuracy"] == inverted["correct"] / 40


def test_evaluate_writes_a_page_that_loads_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    file.write_text("an earlier one")
    assert main([*command, "--html", str(file), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["correct"] == 36
    assert captured.err.endswith(f"wrote {file}\n")
    assert {path.name for path in tmp_path.glob("*page*")} == {"page.html"}
    assert not list(tmp_path.glob(".*"))
    content = file.read_text()
    page = Page(content)
    assert page.wrong == []
    assert all(address.startswith("data:image/") for address in page.loaded)
    assert not re.search(r"@import|url\(|<script|<link|https?://(?!www.w3.org)", content)
    assert set(page.targets) == {f"#{name}" for name in page.ids}
    confusion, wrong = page.images
    assert confusion.endswith("most often, 4 times, 0 is mistaken for 1")
    assert wrong == "0 taken for 1: 4 pictures"
    text = html.unescape(re.sub(r"<[^>]+>", "|", content))
    for phrase in (
        "90.00% of 40 held-out pictures right.",
        "|command||convserve-train evaluate ",
        f"|bundle||{command[1]}/model.onnx|",
        "interval 76.95% to 96.04%, by Wilson's method",
        "Pictures that are changed on purpose",
    ):
        assert phrase in text, phrase


def test_page_of_a_net_without_mistakes_has_no_section_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = digits(tmp_path / "digits"), tmp_path / "page.html"
    bundle = str(pixel_bundle(tmp_path / "models"))
    assert main(["evaluate", bundle, "--data", str(folder), "--html", str(file)]) == 0
    assert "mistaken for others" not in capsys.readouterr().out
    assert [name for name in Page(file.read_text()).ids] == [*("held-out", "classes", "changed")]


def test_page_in_a_folder_that_is_missing_is_refused_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none" / "page.html"
    assert main([*command, "--html", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"convserve-train: --html: expected a file in a folder that exists, got {file}\n"
    )
