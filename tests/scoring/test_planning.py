"""What becomes a shard, and what is refused."""

import os
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convserve_imaging import PHOTO_BILINEAR, PICTURE_BILINEAR
from convserve_scoring import planning
from convserve_scoring.errors import InputError
from convserve_scoring.folders import LocalFolder, open_folder
from convserve_scoring.main import main
from convserve_scoring.packing import Packer
from convserve_scoring.plan import Shard, read_plan
from convserve_scoring.shard_files import Image
from tests.bundles import write_photo_bundle
from tests.jpegs import jpeg_of
from tests.scoring.jobs import plan, rows, write_images, write_parquet

JPEG = jpeg_of("green", (32, 32))


def shards(target: Path) -> list[tuple[str, int]]:
    return [(shard.name, shard.images) for shard in read_plan(open_folder(str(target))).shards]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, capsys.readouterr().err


def test_loose_files_are_packed_in_the_order_of_their_names(tmp_path: Path, model: Path) -> None:
    names = write_images(tmp_path / "images", 10)
    for hidden in (".hidden.jpg", ".hidden/0.jpg", "notes.txt"):
        (tmp_path / "images" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / hidden).write_bytes(JPEG)
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    assert shards(target) == [
        (f"packed-{number:06}.parquet", size) for number, size in enumerate((4, 4, 2))
    ]
    table = pa.concat_tables(pq.read_table(path) for path in sorted((target / "shards").iterdir()))
    assert table["path"].to_pylist() == names
    assert table["bytes"].to_pylist() == [
        (tmp_path / "images" / name).read_bytes() for name in names
    ]


def test_files_of_all_formats_are_scored_each_by_what_the_model_reads(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    red = PIL.Image.new("RGB", (160, 160), "red")
    names = ["a.jpg", "b.JFIF", "c.png", "d.webp", "e.gif"]
    for name, kind in zip(names, ("JPEG", "JPEG", "PNG", "WEBP", "GIF"), strict=True):
        red.save(images / name, kind)
    found = []
    for resize in (PICTURE_BILINEAR, PHOTO_BILINEAR):
        target = tmp_path / resize.partition("/")[0]
        plan(images, target, write_photo_bundle(tmp_path / "models", target.name, resize=resize))
        assert main(["run", str(target), "--workers", "1"]) == 0
        table = rows(target).to_pylist()
        assert [row["path"] for row in table] == names
        found.append([row["label"] for row in table])
    assert found == [["red"] * 5, ["red"] * 2 + [None] * 3]


def test_parquet_files_are_shards_as_they_are(tmp_path: Path, model: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "scored"
    write_parquet(source / "2026" / "b.parquet", [("x", JPEG), ("y", None)])
    write_parquet(source / "a.parquet", [("z", JPEG)])
    write_parquet(source / "empty.parquet", [])
    plan(source, target, model)
    assert shards(target) == [("2026/b.parquet", 2), ("a.parquet", 1)]
    assert not (target / "shards").exists()
    assert main(["run", str(target), "--workers", "1"]) == 0
    assert (target / "rows" / "2026" / "b.parquet").is_file()
    found = rows(target).to_pylist()
    assert [(row["path"], row["label"]) for row in found] == [
        ("x", "green"),
        ("y", None),
        ("z", "green"),
    ]
    assert found[1]["error"] == "bytes: expected the content of a file, got none"
    assert main(["check", str(target)]) == 0


def test_parquet_files_that_are_too_large_are_packed(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "MAX_IMAGES", 5)
    source, target = tmp_path / "source", tmp_path / "scored"
    write_parquet(source / "large.parquet", [(str(number), JPEG) for number in range(6)])
    write_parquet(source / "small.parquet", [("small", JPEG)])
    plan(source, target, model)
    assert shards(target) == [
        ("small.parquet", 1),
        ("packed-000000.parquet", 4),
        ("packed-000001.parquet", 2),
    ]
    assert main(["run", str(target), "--workers", "1"]) == 0
    assert main(["check", str(target)]) == 0
    assert rows(target)["path"].to_pylist() == [*"012345", "small"]


def test_one_parquet_file_is_a_source(tmp_path: Path, model: Path) -> None:
    write_parquet(tmp_path / "one.parquet", [("x", JPEG)])
    write_parquet(tmp_path / "other.parquet", [("y", JPEG)])
    plan(tmp_path / "one.parquet", tmp_path / "scored", model)
    assert shards(tmp_path / "scored") == [("one.parquet", 1)]


def test_file_that_cannot_be_read_is_a_row_with_its_error(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_images(tmp_path / "images", 3)
    os.truncate(tmp_path / "images" / names[1], 2**24 + 1)

    class Vanishing(LocalFolder):
        """One in which a file is gone when it is read."""

        def read(self, name: str) -> bytes:
            (self.path / names[2]).unlink(missing_ok=True)
            return super().read(name)

    monkeypatch.setattr(planning, "open_folder", lambda url: Vanishing(Path(url)))
    plan(tmp_path / "images", tmp_path / "scored", model)
    assert main(["run", str(tmp_path / "scored"), "--workers", "1"]) == 0
    assert rows(tmp_path / "scored")["error"].to_pylist() == [
        None,
        "the file: expected at most 16,777,216 bytes, got more",
        "the file cannot be read: No such file or directory",
    ]
    assert main(["check", str(tmp_path / "scored")]) == 0


def test_name_that_is_not_utf_8_is_scored(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(JPEG)
    plan(folder, tmp_path / "scored", model)
    assert main(["run", str(tmp_path / "scored"), "--workers", "1"]) == 0
    assert rows(tmp_path / "scored").to_pylist()[0]["path"] == "caf\ufffd.jpg"
    assert main(["check", str(tmp_path / "scored")]) == 0


def test_large_files_make_smaller_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convserve_scoring.packing._MAX_BYTES", 3000)
    monkeypatch.setattr("convserve_scoring.packing._GROUP_BYTES", 1000)
    packer = Packer(open_folder(str(tmp_path)), 100, lambda line: None)
    packed = packer.pack(Image(str(number), bytes(600)) for number in range(12))
    assert packed == [
        Shard("packed-000000.parquet", 6, packed=True),
        Shard("packed-000001.parquet", 6, packed=True),
    ]
    file = pq.ParquetFile(tmp_path / "shards" / "packed-000000.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(3)] == [2, 2, 2]


def test_plan_that_was_stopped_leaves_no_shards_behind(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "images", 6)
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    (target / "plan.json").unlink()
    write_parquet(target / "shards" / "packed-000009.parquet", [("x", JPEG)])
    plan(tmp_path / "images", target, model)
    assert {path.name for path in (target / "shards").iterdir()} == {
        "packed-000000.parquet",
        "packed-000001.parquet",
    }


def test_plan_is_made_once(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "images", 2)
    target = tmp_path / "scored"
    plan(tmp_path / "images", target, model)
    before = (target / "plan.json").read_bytes()
    command = ("plan", tmp_path / "images", "--target", target, "--model", model)
    status, error = refused(capsys, *command)
    assert (status, f"go on with: convserve-score run {target}" in error) == (2, True)
    assert (target / "plan.json").read_bytes() == before
    assert main(["run", str(target), "--workers", "1"]) == 0
    (target / "plan.json").unlink()
    status, error = refused(capsys, *command)
    assert (status, "with rows and no plan" in error) == (2, True)


def test_wrong_sources_are_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ("--target", tmp_path / "scored", "--model", model)
    both = tmp_path / "both"
    write_images(both, 1)
    write_parquet(both / "x.parquet", [("x", JPEG)])
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"path": ["x"], "jpeg": ["text"]}), other / "x.parquet")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "x.parquet").write_bytes(b"not Parquet")
    for source, flags, expected in (
        (tmp_path / "none", (), f"source: expected a folder with images or Parquet files, got "
                                f"{tmp_path / 'none'}"),
        (both, (), "got both"),
        (other, (), "x.parquet: expected a column 'bytes', got path, jpeg; --path-column"),
        (other, ("--bytes-column", "jpeg"), "x.parquet: jpeg: expected binary, got string"),
        (damaged, (), "x.parquet: expected a Parquet file, got:"),
        (both, ("--shard-images", "0"), "--shard-images: expected 1 to 10,000, got 0"),
        (tmp_path, (), "target: expected a folder outside the source"),
    ):  # fmt: skip
        status, error = refused(capsys, "plan", source, *target, *flags)
        assert (status, expected in error) == (2, True), error
    assert not (tmp_path / "scored" / "plan.json").exists()


def test_wrong_models_are_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "images", 1)
    loose = tmp_path / "Not a name" / "3"
    loose.mkdir(parents=True)
    (loose / "model.onnx").write_bytes((model / "3" / "model.onnx").read_bytes())
    for path, status, expected in (
        (tmp_path / "none", 2, "model: "),
        (loose, 2, "model: expected NAME/VERSION/model.onnx, got"),
    ):
        found, error = refused(
            capsys, "plan", tmp_path / "images", "--target", tmp_path / "scored", "--model", path
        )
        assert (found, expected in error) == (status, True), error


def test_newest_version_is_planned_and_stays(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "images", 1)
    plan(tmp_path / "images", tmp_path / "scored", model)
    planned = read_plan(open_folder(str(tmp_path / "scored"))).model
    assert (planned.name, planned.version, planned.labels) == (
        "colours",
        3,
        ("red", "green", "blue"),
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "target: expected a folder with plan.json, got"),
        (b"{", "plan.json: expected a plan, got:"),
        (b'{"format": 1}', "Object missing required field"),
    ],
)
def test_plan_that_cannot_be_followed_is_refused(
    content: bytes | None, expected: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read_plan(open_folder(str(tmp_path)))
