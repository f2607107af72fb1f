"""Lists of photographs: their parts, metadata files, and a form of list that is added."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from convserve_protos.bundle_pb2 import InputSpec, Manifest
from convserve_trainer.cli.parser import parser
from convserve_trainer.datasets import parts, photos, registry
from convserve_trainer.datasets.columns import Columns
from convserve_trainer.datasets.photo_lists import Listed
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import FORMATS, PHOTOS, Format
from convserve_trainer.errors import DataError, TrainerError, UsageError
from convserve_trainer.main import main
from tests.trainer.drawn import draw, draw_parts
from tests.trainer.picture_sets import Check

MANIFEST = Manifest(labels=["blue", "red"], input=InputSpec(resize="photo-bilinear/1"))
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_parts(tmp_path / "data", {"red": 6, "blue": 5}, {"red": 3, "blue": 4})


def _source(path: Path, **more: object) -> Source:
    return Source(path, 16, 24, **({"cache": "memory"} | more))  # type: ignore[arg-type]


def _reader(path: Path) -> registry.Reader:
    return registry.find_format(PHOTOS, path).reader


def _silent(line: str) -> None:
    del line


# A form of list that is added: a module and its line


class Lines(ModuleType):
    """A text file with a part, a label and a path a line."""

    def match(self, folder: Path) -> bool:
        return folder.suffix == ".list"

    def rows(self, source: Source, say: registry.Say) -> Iterator[Listed]:
        assert source.folder is not None
        say("reads lines")
        for number, line in enumerate(source.folder.read_text().splitlines(), 1):
            part, label, path = line.split(maxsplit=2)
            where = f"{source.folder}, line {number}"
            yield Listed(where, source.folder.parent / path, path, (label,), part)


@pytest.fixture
def listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "convserve_trainer.datasets.lines", Lines("lines"))
    monkeypatch.setattr(registry, "FORMATS", (*FORMATS, Format("lines", PHOTOS, "lines", True)))
    file = folder / "set.list"
    lines = [
        f"{path.parts[-3]} {path.parts[-2]} {path.relative_to(folder)}"
        for path in sorted(folder.glob("*/*/*.jpg"))
    ]
    file.write_text("\n".join(lines))
    return file


def test_added_list_is_trained_on_evaluated_and_checked(
    listed: Path, folder: Path, capsys: Capsys
) -> None:
    lines: list[str] = []
    data = _reader(listed).load(_source(listed), None, lines.append)
    assert lines[0] == "reads lines"
    same = photos.load(_source(folder), None, _silent)
    assert (len(data.train), len(data.held_out)) == (len(same.train), len(same.held_out)) == (11, 7)
    assert len(_reader(listed).held_out(_source(listed), MANIFEST, _silent)) == 7
    check = Check(listed, capsys)
    assert check.status == 0
    assert [count["files"] for count in check.result["classes"]] == [5, 6, 4, 3]
    assert "reads lines" in check.errors


def test_list_and_folder_of_the_same_names_are_the_same_run(listed: Path, tmp_path: Path) -> None:
    """The digest of the data is what a training that goes on is recognised by."""
    digest = _reader(listed).load(_source(listed), None, _silent).sha256
    moved = tmp_path / "elsewhere"
    listed.parent.rename(moved)
    assert _reader(moved / listed.name).load(_source(moved / listed.name), None, _silent)
    again = _reader(moved / listed.name).load(_source(moved / listed.name), None, _silent)
    assert again.sha256 == digest
    picture = next(moved.glob("train/red/*.jpg"))
    picture.write_bytes(next(moved.glob("train/blue/*.jpg")).read_bytes())
    changed = _reader(moved / listed.name).load(_source(moved / listed.name), None, _silent)
    assert changed.sha256 != digest


# Parts


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("test.parquet", "test"),
        ("pets_val_2.parquet", "validation"),
        ("default/Training/0000.parquet", "train"),
        ("latest.parquet", None),
        ("trained.parquet", None),
    ],
)
def test_part_is_a_word_of_the_path(path: str, part: str | None) -> None:
    assert parts.in_path(path) == part


def test_folders_of_other_names_are_the_parts(folder: Path) -> None:
    same = photos.load(_source(folder), None, _silent)
    (folder / "validation").rename(folder / "val")
    draw(folder / "test", {"red": 1, "blue": 1}, seed=9)
    data = photos.load(_source(folder), None, _silent)
    assert data.sha256 == same.sha256
    assert len(photos.held_out(_source(folder), MANIFEST, _silent)) == 7
    assert len(photos.held_out(_source(folder, part="test"), MANIFEST, _silent)) == 2
    with pytest.raises(UsageError, match="--part: expected without --validation-split, got both"):
        _source(folder, part="test", split=0.5)


def test_share_of_train_is_held_out_where_the_rest_is_for_tests(folder: Path) -> None:
    (folder / "validation").rename(folder / "test")
    with pytest.raises(DataError, match="has train but no validation; add it, or hold out a share"):
        photos.load(_source(folder), None, _silent)
    data = photos.load(_source(folder, split=0.4), None, _silent)
    assert len(data.train) + len(data.held_out) == 11
    assert len(photos.held_out(_source(folder), MANIFEST, _silent)) == 7, "those of test"
    held_out = photos.held_out(_source(folder, split=0.4), MANIFEST, _silent)
    assert len(held_out) == len(data.held_out)
    with pytest.raises(DataError, match="expected a folder validation, got train, test"):
        photos.held_out(_source(folder, part="validation"), MANIFEST, _silent)


def _csv(folder: Path, *names: str) -> Path:
    """A CSV of pictures whose parts have these names, by part."""
    rows = ["file,kind,fold"]
    for part, name in zip(("train", "validation"), names, strict=False):
        rows += [
            f"{path.relative_to(folder)},{path.parts[-2]},{name}"
            for path in sorted(folder.glob(f"{part}/*/*.jpg"))
        ]
    file = folder / "set.csv"
    file.write_text("\n".join(rows))
    return file


COLUMNS = Columns("file", "kind", "fold")


def test_test_of_a_list_is_evaluated_and_never_trained_on(folder: Path) -> None:
    file = _csv(folder, "training", "eval")
    source = _source(file, columns=COLUMNS)
    with pytest.raises(UsageError, match="has train, test, but no validation: add it, or hold out"):
        _reader(file).load(source, None, _silent)
    lines: list[str] = []
    split = _source(file, columns=COLUMNS, split=0.4)
    data = _reader(file).load(split, None, lines.append)
    assert len(data.train) + len(data.held_out) == 11
    assert lines[0] == "not used: 7 pictures of test (evaluate --part test)"
    assert len(_reader(file).held_out(source, MANIFEST, _silent)) == 7
    held_out = _reader(file).held_out(split, MANIFEST, _silent)
    assert len(held_out) == len(data.held_out)
    part = _source(file, columns=COLUMNS, part="validation")
    with pytest.raises(DataError, match="set.csv: expected a part validation, got train, test"):
        _reader(file).held_out(part, MANIFEST, _silent)


def test_column_that_is_not_there_is_named(folder: Path) -> None:
    file = _csv(folder, "train", "val")
    with pytest.raises(DataError, match=r"path and label \(or labels\), and perhaps split, "):
        _reader(file).load(_source(file), None, _silent)
    source = _source(file, columns=Columns("file", "kind", "part"))
    with pytest.raises(DataError, match="expected the columns file and kind, and perhaps part, "):
        _reader(file).load(source, None, _silent)


@pytest.mark.parametrize("text", ["", "label", "label=", "labels=a", "label=a,label=b"])
def test_columns_that_are_not_pairs_are_refused(text: str, capsys: Capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["fit", "photos", "--data", "x.csv", "--columns", text])
    assert "argument --columns: expected pairs of picture, label, split and" in (
        capsys.readouterr().err
    )


# Metadata files


def _jsonl(folder: Path, *lines: object) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metadata.jsonl").write_text("\n".join(text))
    return folder


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_each_part_list_its_pictures(folder: Path, kind: str) -> None:
    same = photos.load(_source(folder), None, _silent)
    for part in ("train", "validation"):
        names = sorted((folder / part).glob("*/*.jpg"))
        rows = [(path.relative_to(folder / part).as_posix(), path.parts[-2]) for path in names]
        if kind == "jsonl":
            _jsonl(folder / part, *({"file_name": name, "label": label} for name, label in rows))
        else:
            lines = ["file_name,label", *map(",".join, rows)]
            (folder / part / "metadata.csv").write_text("\n".join(lines))
    assert registry.find_format(PHOTOS, folder).name == "photo-metadata"
    data = _reader(folder).load(_source(folder), None, _silent)
    assert data.labels == same.labels
    assert data.train.labels.tolist() == same.train.labels.tolist()
    assert len(data.held_out) == len(same.held_out)


def test_two_metadata_files_in_a_folder_are_refused(folder: Path) -> None:
    _jsonl(folder)
    (folder / "metadata.csv").touch()
    with pytest.raises(
        DataError, match="expected one metadata file, got metadata.csv and metadata"
    ):
        registry.find_format(PHOTOS, folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "metadata.jsonl, line 2: expected JSON: "),
        ("3", "metadata.jsonl, line 2: expected a JSON object, got 3"),
        ({"label": "a"}, "line 2: file_name: expected a path, got None"),
        ({"file_name": "a.jpg"}, "line 2: expected the fields file_name and label, got file_name"),
        ({"file_name": "b", "label": 1.5}, "line 2: label: expected text or a number, got 1.5"),
        ({"file_name": "b", "label": "a", "split": 1}, "line 2: split: expected text, got 1"),
        (
            {"file_name": "b", "label": ["a"]},
            "line 2: labels: expected a list in every row, or in none",
        ),
        ("\udcff", "metadata.jsonl: expected UTF-8: "),
    ],
)
def test_line_that_is_not_as_it_should_be_is_named(
    line: object, message: str, tmp_path: Path
) -> None:
    first = json.dumps({"file_name": "a.jpg", "label": "a"})
    text = line if isinstance(line, str) else json.dumps(line)
    content = f"{first}\n{text}\n".encode(errors="surrogateescape")
    (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(TrainerError) as caught:
        _reader(tmp_path).load(_source(tmp_path, split=0.5), None, _silent)
    assert message in str(caught.value)


# What needs a package


def test_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    (tmp_path / "set.parquet").touch()
    for name in ("table_rows", "tables", "unpacked"):
        monkeypatch.delitem(sys.modules, f"convserve_trainer.datasets.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["check-data", str(tmp_path / "set.parquet")]) == 1
    assert capsys.readouterr().err.endswith(
        "pyarrow is not installed; run: pip install 'convserve[train,parquet]'\n"
    )
