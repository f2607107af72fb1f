"""Photographs that a CSV file lists."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec, Manifest
from convserve_trainer.datasets import photos, registry
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.errors import DataError, MissingDataError, TrainerError, UsageError
from convserve_trainer.main import main
from tests.trainer.drawn import draw_parts

[FORMAT] = [entry for entry in registry.FORMATS if entry.name == "photo-csv"]
READER = FORMAT.reader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_parts(tmp_path / "data", {"red": 6, "blue": 5}, {"red": 3, "blue": 4})


def listed(folder: Path, split: bool = True, mark: str = "") -> Path:
    """Writes a CSV of all pictures of a folder with train and validation; returns its path."""
    file = folder / "set.csv"
    with file.open("w", newline="", encoding="utf-8") as text:
        text.write(mark)
        rows = csv.writer(text)
        rows.writerow(["note", "path", "label", *(["split"] if split else [])])
        for path in sorted(folder.glob("*/*/*.jpg"), reverse=True):
            part, label, _ = path.relative_to(folder).parts
            name = path.relative_to(folder).as_posix()
            rows.writerow(["any, text", name, label, *([part] if split else [])])
    return file


def source(path: Path, split: float | None = None) -> Source:
    return Source(path, 16, 24, split=split, cache="memory")


def _say(line: str) -> None:
    assert "not used" not in line


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_listed_pictures_are_those_of_the_folders(folder: Path, mark: str) -> None:
    file = listed(folder, mark=mark)
    assert registry.find_format(registry.PHOTOS, file).name == "photo-csv"
    assert registry.find_format(registry.PHOTOS, folder).name == "photo-folders"
    data = READER.load(source(file), None, _say)
    same = photos.load(source(folder), None, _say)
    assert data.labels == same.labels == ("blue", "red")
    assert data.spec == same.spec
    for one, other in ((data.train, same.train), (data.held_out, same.held_out)):
        assert one.labels.tolist() == other.labels.tolist()
        [(pixels, _)] = one.batches(range(len(one)), len(one))
        [(expected, _)] = other.batches(range(len(other)), len(other))
        assert np.array_equal(pixels, expected)


def test_share_is_held_out_where_there_is_no_column_for_it(folder: Path) -> None:
    file = listed(folder, split=False)
    data = READER.load(source(file, split=0.4), None, _say)
    assert len(data.train) + len(data.held_out) == 18
    manifest = Manifest(labels=["blue", "red"], input=InputSpec(resize="photo-bilinear/1"))
    again = READER.held_out(source(file, split=0.4), manifest, _say)
    assert sorted(again.labels) == sorted(data.held_out.labels)
    assert len(READER.held_out(source(file), manifest, _say)) == 18
    with pytest.raises(UsageError, match="and no column split: add --validation-split SHARE, or "):
        READER.load(source(file), None, _say)
    with pytest.raises(UsageError, match="a part validation already: leave out --validation-s"):
        READER.load(source(listed(folder), split=0.4), None, _say)


def test_classes_of_another_bundle_are_refused(folder: Path) -> None:
    manifest = Manifest(labels=["a", "b"], input=InputSpec(resize="photo-bilinear/1"))
    with pytest.raises(DataError, match="set.csv: expected the classes of the bundle, a, b, got b"):
        READER.held_out(source(listed(folder)), manifest, _say)


def test_picture_that_is_not_there_is_counted(folder: Path) -> None:
    file = listed(folder)
    (folder / "train/red/000.jpg").unlink()
    with pytest.raises(DataError, match="1 of 18 pictures cannot be read, more than") as caught:
        READER.load(source(file), None, _say)
    assert f"convserve-train check-data {file} tells more" in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "label (or labels), and perhaps split, in the first line, got nothing"),
        (
            ["path,class", "a.jpg,a"],
            "label (or labels), and perhaps split, in the first line, got path, class",
        ),
        (
            ["path,label,labels", "a.jpg,a,a|b"],
            "(or labels), and perhaps split, in the first line, got path, label, labels",
        ),
        (["path,label"], "lists no picture"),
        (["path,label,split", "a.jpg,a"], ", line 2: expected 3 columns, got 2"),
        (["path,label", "a.jpg,a,b"], ", line 2: expected 2 columns, got 3 or more"),
        (["path,label", "a.jpg,a", ",b"], ", line 3: path: expected a path, got ''"),
        (["path,label", "a.jpg,"], ", line 2: label: expected printable text, got ''"),
        (["path,label", "a.jpg,a", "a.jpg,b"], ", line 3: a.jpg is listed twice, see "),
        (
            ["path,label,split", "a.jpg,a,rest"],
            ", line 2: split: expected train, validation, test, got 'rest'",
        ),
        (["path,label,split", "a.jpg,a,train"], "has one class only, a: expected two"),
        (
            ["path,label,split", "a.jpg,a,train", "b.jpg,b,train", "c.jpg,b,validation"],
            ": train has the classes a, b, validation has b",
        ),
        (
            ["path,label,split", "a.jpg,a,train", "b.jpg,b,train"],
            " has train, but no validation: add it, or hold out a share of train with --validation",
        ),
        (
            ["path,label,split", "a.jpg,a,val", "b.jpg,b,dev"],
            ": expected a part train, got validation",
        ),
        (['path,label,"spl', "it"], ": expected CSV in UTF-8: "),
        (["path,label", "a\udcff.jpg,a"], ": expected CSV in UTF-8: "),
    ],
)
def test_file_that_is_not_as_it_should_be_is_refused(
    lines: Iterable[str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "set.csv"
    file.write_bytes("\n".join(lines).encode("utf-8", errors="surrogateescape"))
    with pytest.raises(TrainerError) as caught:
        READER.load(source(file), None, _say)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert message in text
    assert "\n" not in text


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no file .*set.csv"):
        READER.load(source(tmp_path / "set.csv"), None, _say)


@pytest.mark.usefixtures("undrawn")
def test_listed_pictures_are_trained_on_and_evaluated(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, models = listed(folder), tmp_path / "models"
    command = ["fit", "photos", "--data", str(file), "--models", str(models), "--recipe", "quick"]
    command += ["--size", "22x24", "--batch-size", "8", "--epochs", "1", "--min-accuracy", "0"]
    assert main(command) == 0
    bundle = models / "set"  # the file's name without its ending
    assert (bundle / "1" / "model.onnx").exists()
    capsys.readouterr()
    assert main(["evaluate", str(bundle), "--data", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 7
