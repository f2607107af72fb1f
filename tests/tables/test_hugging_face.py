"""What Hugging Face's datasets write, read without that package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convserve_trainer.datasets import registry
from convserve_trainer.errors import DataError, UsageError
from convserve_trainer.main import main
from tests.tables.written import check_same, load
from tests.trainer.drawn import draw_parts

FORMS = {
    "saved": "photo-saved",
    "loaded": "photo-saved",
    "repository": "photo-parquet",
    "csv": "photo-metadata",
    "jsonl": "photo-metadata",
    "parquet": "photo-metadata",
    "top": "photo-metadata",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Class folders, the folder with all forms of them, and what their package reads of each."""
    top = tmp_path_factory.mktemp("hugging-face")
    folder = draw_parts(top / "data", {"red": 6, "blue": 5}, {"red": 3, "blue": 4})
    command = [sys.executable, "-m", "tests.tables.hugging_face", str(folder), str(top / "target")]
    environment = os.environ | {"HF_HOME": str(top / "home")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    return folder, top / "target", done.stdout.splitlines()[-1]


def test_their_package_reads_the_same_parts(written: tuple[Path, Path, str]) -> None:
    _, _, printed = written
    for form, parts in json.loads(printed).items():
        assert parts == {"train": 11, "validation": 7}, form


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_pictures_of_the_folders(
    form: str, written: tuple[Path, Path, str]
) -> None:
    folder, target, _ = written
    assert registry.find_format(registry.PHOTOS, target / form).name == FORMS[form]
    check_same(load(target / form), folder)


def test_single_data_set_needs_a_share(written: tuple[Path, Path, str]) -> None:
    _, target, _ = written
    with pytest.raises(UsageError, match="no column split: add --validation-split SHARE"):
        load(target / "single")
    data = load(target / "single", split=0.4)
    assert (len(data.train) + len(data.held_out), data.labels) == (11, ("blue", "red"))


@pytest.mark.parametrize("form", ["saved", "repository", "jsonl"])
def test_checks_accept_it(
    form: str, written: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, target, _ = written
    assert main(["check-data", str(target / form), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(c["split"], c["label"], c["files"]) for c in found["classes"]] == [
        ("train", "blue", 5),
        ("train", "red", 6),
        ("validation", "blue", 4),
        ("validation", "red", 3),
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dataset_dict.json", "{", "dataset_dict.json: expected JSON: "),
        ("dataset_dict.json", "[]", "dataset_dict.json: expected a JSON object, got []"),
        (
            "dataset_dict.json",
            '{"splits": ["../up"]}',
            "splits: expected names in this folder",
        ),
        ("dataset_dict.json", '{"splits": ["gone"]}', "gone/state.json: No such file or directory"),
        ("train/state.json", "{}", "_data_files: expected names in this folder, got []"),
        (
            "train/state.json",
            '{"_indices_data_files": [{"filename": "a.arrow"}]}',
            "train/state.json: expected rows in the order of the files, got a list of indices; ",
        ),
        (
            "train/state.json",
            '{"_data_files": [{"filename": "none.arrow"}]}',
            "no file ",
        ),
        ("train/data-00000-of-00003.arrow", "no arrow", ": expected the stream format of Arrow: "),
    ],
)
def test_saved_data_that_are_damaged_are_refused(
    file: str, content: str, message: str, written: tuple[Path, Path, str], tmp_path: Path
) -> None:
    _, target, _ = written
    copy = tmp_path / "copy"
    for path in sorted((target / "saved").rglob("*")):
        if path.is_file():
            there = copy / path.relative_to(target / "saved")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    (copy / file).write_text(content)
    with pytest.raises(DataError) as caught:
        load(copy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
