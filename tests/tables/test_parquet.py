"""Photographs in Parquet: in each form that the column of pictures may have, and with faults."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convserve_imaging.errors import DamagedPictureError
from convserve_protos.bundle_pb2 import InputSpec, Manifest
from convserve_trainer.datasets import content, photo_parquet, registry, unpacked
from convserve_trainer.datasets.columns import Columns
from convserve_trainer.datasets.pictures import Data
from convserve_trainer.errors import DataError, MissingDataError, TrainerError, UsageError
from convserve_trainer.main import main
from tests.tables.written import LABELS, arrays, check_same, files, load, source, whole, write

Rows = list[tuple[str, str, Path]]
MANIFEST = Manifest(labels=["blue", "red"], input=InputSpec(resize="photo-bilinear/1"))


def _features(names: tuple[str, ...] = LABELS) -> dict[str, Any]:
    label = {"names": list(names), "_type": "ClassLabel"}
    return {
        "huggingface": json.dumps(
            {"info": {"features": {"photo": {"_type": "Image"}, "kind": label}}}
        )
    }


def _plain(path: Path, rows: Rows) -> Path:
    return whole(path, rows)


def _views(path: Path, rows: Rows) -> Path:
    data = [file.read_bytes() for _, _, file in rows]
    labels = pa.array([label for _, label, _ in rows]).dictionary_encode()
    return whole(path, rows, bytes=pa.array(data, pa.large_binary()), label=labels)


def _structs(path: Path, rows: Rows) -> Path:
    columns = {
        "photo": [{"bytes": file.read_bytes(), "path": file.name} for _, _, file in rows],
        "kind": [LABELS.index(label) for _, label, _ in rows],
        "split": [part for part, _, _ in rows],
    }
    return write(path, columns, metadata=_features())


def _paths(path: Path, rows: Rows) -> Path:
    names = [os.path.relpath(file, path.parent) for _, _, file in rows]
    return write(
        path,
        {"path": names, "label": [label for _, label, _ in rows], "split": [p for p, _, _ in rows]},
    )


def _half_in_files(path: Path, rows: Rows) -> Path:
    pictures = [
        {"bytes": None, "path": str(file)} if number % 2 else {"bytes": file.read_bytes()}
        for number, (_, _, file) in enumerate(rows)
    ]
    return whole(path, rows, image=pictures).rename(path)


@pytest.mark.parametrize("form", [_plain, _views, _structs, _paths, _half_in_files])
@pytest.mark.parametrize("kept", ["memory", "disk", "none"])
def test_rows_are_the_pictures_of_the_folders(
    form: Callable[[Path, Rows], Path], kept: str, folder: Path, tmp_path: Path
) -> None:
    file = form(tmp_path / "set.parquet", files(folder))
    assert registry.find_format(registry.PHOTOS, file).name == "photo-parquet"
    columns = Columns(label="kind") if form is _structs else Columns()
    check_same(load(file, cache=kept, columns=columns), folder)


def test_lists_of_labels_are_those_of_a_csv_file(folder: Path, tmp_path: Path) -> None:
    rows = [row for row in files(folder) if row[0] == "train"]
    sets = [["sea", label] if number % 3 else [] for number, (_, label, _) in enumerate(rows)]
    table = pa.table({"bytes": [path.read_bytes() for _, _, path in rows], "labels": sets})
    pq.write_table(table, tmp_path / "set.parquet")
    lines = [f"{path},{'|'.join(some)}" for some, (_, _, path) in zip(sets, rows, strict=True)]
    (tmp_path / "set.csv").write_text("\n".join(["path,labels", *lines]))
    data, listed = (load(tmp_path / f"set.{suffix}", split=0.2) for suffix in ("parquet", "csv"))
    assert data.labels == listed.labels == ("blue", "red", "sea")
    assert labelled_pixels(data) == labelled_pixels(listed)
    labels = np.concatenate([data.train.labels, data.held_out.labels])
    assert labels.sum(axis=0)[2] == sum(map(bool, sets)) < len(rows)


def labelled_pixels(data: Data) -> list[tuple[bytes, list[int]]]:
    """Pixels and labels of all pictures, sorted."""
    found = []
    for pictures in (data.train, data.held_out):
        for pixels, labels in pictures.batches(range(len(pictures)), 8):
            rows = zip(pixels, labels.tolist(), strict=True)
            found += [(each.tobytes(), row) for each, row in rows]
    return sorted(found)


def test_shards_have_their_part_in_the_name_and_are_unpacked_once(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    rows = files(folder)
    repository = tmp_path / "repository"
    for part, name in (("train", "train"), ("validation", "val"), ("train", "test")):
        of_part = [row for row in rows if row[0] == part]
        for number, some in enumerate((of_part[::2], of_part[1::2])):
            shard = repository / f"data/{name}-0000{number}-of-00002.parquet"
            whole(shard, some, split=["anything"] * len(some))
    lines: list[str] = []
    check_same(load(repository, lines.append), folder)
    assert [line.partition(" into ")[0] for line in lines[:6]] == [
        f"unpacking {shard}" for shard in sorted(repository.glob("data/*.parquet"))
    ]
    assert lines[6] == "not used: 11 pictures of test (evaluate --part test)"
    assert len(list(cache.iterdir())) == 6
    again: list[str] = []
    check_same(load(repository, again.append), folder)
    assert not [line for line in again if "unpacking" in line]
    held = registry.find_format(registry.PHOTOS, repository).reader.held_out
    assert len(held(source(repository), MANIFEST, again.append)) == 7
    assert len(held(source(repository, part="test"), MANIFEST, again.append)) == 11


def test_digest_is_of_the_pictures_and_not_of_the_file(folder: Path, tmp_path: Path) -> None:
    rows = files(folder)
    file = whole(tmp_path / "set.parquet", rows)
    first = load(file)
    whole(file, rows, note=list(range(len(rows))))  # another file with the same pictures
    assert load(file).sha256 == first.sha256
    assert load(file, split=None).sha256 == first.sha256
    data = [path.read_bytes() for _, _, path in rows]
    data[0] = rows[1][2].read_bytes()
    whole(file, rows, bytes=data)
    assert load(file).sha256 != first.sha256, "what was unpacked before is not used"


def test_rows_that_give_no_picture_are_named_and_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = files(folder)
    data: list[Any] = [path.read_bytes() for _, _, path in rows]
    monkeypatch.setattr(content, "MAX_BYTES", 2**20)
    data[1], data[3], data[5], data[7] = None, bytes(2**20 + 1), data[5][:-20], b""
    labels: list[str | None] = [label for _, label, _ in rows]
    labels[9] = None
    file = whole(tmp_path / "set.parquet", rows, bytes=data, label=labels)
    lines: list[str] = []
    data_ = load(file, lines.append, max_unreadable=0.3)
    assert len(data_.train) + len(data_.held_out) == len(rows) - 5
    assert f"not used: 1 picture without a label: {file} row 9" in lines
    [line] = [line for line in lines if "cannot be read" in line]
    assert line.startswith("4 of 17 pictures cannot be read and are left out: ")
    for row, why in ((1, "the row has no picture"), (3, "the picture has more than 1 MiB")):
        assert f"{file} row {row} ({why})" in line
    assert f"{file} row 5 (the JPEG is truncated" in line
    assert f"{file} row 7 (not a JPEG" in line
    with pytest.raises(DataError, match="2 of 17 pictures cannot be read, more than the share"):
        load(file)


def test_pictures_of_other_formats_are_read_if_they_are_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    from io import BytesIO

    from PIL import Image

    pictures = []
    for _, _, path in files(folder):
        buffer = BytesIO()
        Image.open(path).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    file = whole(tmp_path / "set.parquet", files(folder), bytes=pictures)
    with pytest.raises(DataError, match="PNG.*; PNG, WebP and GIF are read with --formats all; "):
        load(file)
    data = load(file, method="picture-bilinear/1")
    pixels, _ = arrays(data.train)
    assert pixels.shape == (11, 16, 24, 3)


def test_numbers_are_names_where_there_are_none(folder: Path, tmp_path: Path) -> None:
    rows = files(folder)
    numbers = [LABELS.index(label) for _, label, _ in rows]
    file = whole(tmp_path / "set.parquet", rows, label=numbers)
    assert load(file).labels == ("0", "1")


def test_share_is_held_out_of_rows_without_parts(folder: Path, tmp_path: Path) -> None:
    rows = files(folder)
    columns = {"bytes": [f.read_bytes() for _, _, f in rows], "label": [x for _, x, _ in rows]}
    file = write(tmp_path / "set.parquet", columns)
    data = load(file, split=0.4)
    assert len(data.train) + len(data.held_out) == 18
    held_out = registry.find_format(registry.PHOTOS, file).reader.held_out
    again = held_out(source(file, split=0.4), MANIFEST, lambda _: None)
    assert arrays(again)[1] == arrays(data.held_out)[1]
    with pytest.raises(UsageError, match="no column split: add --validation-split SHARE"):
        load(file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"x": [1], "label": ["a"]},
            ": expected a column image or bytes or path, got x, label; --c",
        ),
        (
            {"bytes": [b""], "x": ["a"]},
            ": expected a column label, got bytes, x; --columns label=N",
        ),
        (
            {"bytes": [1], "label": ["a"]},
            ": bytes: expected the bytes of files (binary), their pat",
        ),
        (
            {"bytes": [b""], "label": [1.5]},
            ": label: expected names or numbers of classes (string ",
        ),
        (
            {"bytes": [b"", b""], "labels": [["a"], ["b", "b"]]},
            " row 1: labels: expected each label once, got b|b",
        ),
        (
            {"bytes": [b"", b""], "label": ["a", "\n"]},
            " row 1: label: expected printable text, got",
        ),
        ({"path": ["", "x"], "label": ["a", "b"]}, " row 0: path: expected a path, got ''"),
        ({"path": ["x", "x"], "label": ["a", "b"]}, " row 1: x is listed twice, see "),
        ({"bytes": [b"", b""], "label": ["a", "a"]}, " has one class only, a: expected two"),
        (
            {"bytes": [b""], "label": ["a"], "split": ["c"]},
            " row 0: split: expected train, validat",
        ),
        (
            {"bytes": [b"", b""], "label": ["a", "b"], "split": ["train", None]},
            ": split: expected one in every row, got none in some",
        ),
        ({"bytes": pa.array([], pa.binary()), "label": pa.array([], pa.string())}, " lists no pi"),
    ],
)
def test_table_that_is_not_as_it_should_be_is_refused(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "set.parquet", columns)
    with pytest.raises(TrainerError) as caught:
        load(file)
    text = str(caught.value)
    assert text.startswith(str(file))
    assert message in text
    assert "\n" not in text


def test_number_without_a_name_is_refused_and_minus_one_has_no_label(tmp_path: Path) -> None:
    columns = {"photo": [b"", b"", b""], "kind": [0, -1, 2]}
    file = write(tmp_path / "set.parquet", columns, metadata=_features())
    with pytest.raises(DataError, match="set.parquet row 2: label: expected 0 to 1, got 2"):
        load(file, columns=Columns(label="kind"), split=0.5)
    with pytest.raises(
        DataError, match="expected a column kinds, got photo, kind; --columns label"
    ):
        load(file, columns=Columns(label="kinds"), split=0.5)


def test_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "set.parquet"
    with pytest.raises(MissingDataError, match="no file .*set.parquet"):
        load(file)
    for data in (b"", b"PAR1" + bytes(100), b"no table at all"):
        file.write_bytes(data)
        with pytest.raises(DataError, match=f"^{file}: ") as caught:
            load(file)
        assert "\n" not in str(caught.value)


def test_table_whose_middle_is_damaged_is_refused(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    file = whole(tmp_path / "set.parquet", files(folder))
    data = bytearray(file.read_bytes())
    data[4:2000] = bytes(1996)
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"^{file}: "):
        load(file)
    assert list(cache.iterdir()) == [], "nothing that is half unpacked is left"


def test_row_whose_unpacked_file_was_cut_short_is_lost(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    rows = files(folder)
    file = whole(tmp_path / "set.parquet", rows)
    load(file)
    [pictures] = cache.glob("*/pictures")
    with pictures.open("r+b") as opened:
        opened.truncate(pictures.stat().st_size - 10)
    with pytest.raises(DataError, match=rf"1 of 18 .*row 17 \({pictures} is cut short: remove its"):
        load(file)


def test_pictures_that_nothing_has_read_for_a_month_are_removed(
    folder: Path, tmp_path: Path, cache: Path
) -> None:
    first, second, third = (
        whole(tmp_path / f"{name}.parquet", files(folder)) for name in ("a", "b", "c")
    )
    for file in (first, second):
        load(file)
    long_ago = time.time() - unpacked.UNUSED_S - 60
    for path in cache.iterdir():
        os.utime(path, (long_ago, long_ago))
    load(first)  # is read again
    assert len(list(cache.iterdir())) == 2, "nothing is removed before space is needed"
    load(third)
    lines: list[str] = []
    for file in (first, third, second):
        load(file, lines.append)
    assert [line.partition(" into ")[0] for line in lines if "unpacking" in line] == [
        f"unpacking {second}"
    ]


def test_disk_that_takes_no_pictures_is_named(folder: Path, tmp_path: Path, cache: Path) -> None:
    file = whole(tmp_path / "set.parquet", files(folder))
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    with pytest.raises(DataError, match=f"the pictures of {file} cannot be kept in {cache}/.*: "):
        load(file)


def test_row_without_bytes_says_so() -> None:
    row = content.TableRow(Path("a.parquet"), 17, Path("none"), 0, content.NULL)
    assert str(row) == "a.parquet row 17"
    with pytest.raises(DamagedPictureError, match="the row has no picture"):
        row.read_bytes()


#: Prints how many bytes of Arrow were in use at most while a table was unpacked.
UNPACK = """
import sys
from pathlib import Path
import pyarrow as pa
from convserve_trainer.datasets.tables import Table
from convserve_trainer.datasets.unpacked import unpacked

found = unpacked(Table(Path(sys.argv[1]), "x"), "bytes", print)
assert found.spans[:, 1].sum() == found.path.stat().st_size == 96 << 20
print(pa.default_memory_pool().max_memory())
"""


def test_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """96 MiB in one row group, in pages of 4 MiB: a page is the least that can be read."""
    table = pa.table({"bytes": [os.urandom(2**18) for _ in range(384)]})
    file = tmp_path / "set.parquet"
    pq.write_table(table, file, row_group_size=1000, write_batch_size=16)
    command = [sys.executable, "-c", UNPACK, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 32 << 20


def test_folder_of_other_files_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "train/cats").mkdir(parents=True)
    (tmp_path / "train/cats/a.parquet").touch()
    assert not photo_parquet.match(tmp_path)
    assert not photo_parquet.match(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\na: [\n---\n", "README.md: expected YAML at the beginning: "),
        (
            "---\ndataset_info:\n- config_name: a\n- config_name: b\n---\n",
            "README.md has several configurations (a, b): expected one; name the folder",
        ),
        ("\udcff", "README.md: "),
    ],
)
def test_readme_that_is_not_as_it_should_be_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.parquet", {"bytes": [b""], "label": [0]})
    (tmp_path / "README.md").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)


def test_names_of_classes_are_in_the_readme(folder: Path, tmp_path: Path) -> None:
    rows = files(folder)
    numbers = [LABELS.index(label) for _, label, _ in rows]
    whole(tmp_path / "repository/data.parquet", rows, label=numbers)
    (tmp_path / "repository/README.md").write_text(
        "---\nlicense: mit\ndataset_info:\n  features:\n  - name: bytes\n    dtype: binary\n"
        "  - name: label\n    dtype:\n      class_label:\n        names:\n"
        "          '0': red\n          '1': blue\n---\n# Colours\n"
    )
    check_same(load(tmp_path / "repository"), folder)


def test_checks_and_drift_read_the_rows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = files(folder)
    data = [path.read_bytes() for _, _, path in rows]
    data[0], data[4] = b"none", data[12]
    file = whole(tmp_path / "set.parquet", rows, bytes=data)
    assert main(["check-data", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    items = {each["kind"]: each["items"] for each in found["findings"]}
    assert [item["path"] for item in items["broken"]] == ["set.parquet row 0"]
    [copy] = items["in-both-splits"]
    assert [copy["path"], *copy["others"]] == ["set.parquet row 12", "set.parquet row 4"]
    assert main(["check-data", str(file), "--fix"]) == 2
    assert "--fix: expected class folders, got " in capsys.readouterr().err
