"""What check-data finds, and its exit status."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from convserve_imaging import photos
from convserve_imaging.errors import PictureError
from convserve_trainer.check_data import survey as examined
from convserve_trainer.datasets.content import MAX_BYTES
from convserve_trainer.recipes import recipe_files
from tests.trainer.conftest import DATA
from tests.trainer.picture_sets import Check, fair_set, picture, save

Capsys = pytest.CaptureFixture[str]


def test_fair_set_is_fit(tmp_path: Path, capsys: Capsys) -> None:
    check = Check(fair_set(tmp_path / "pets"), capsys)
    assert check.status == 0
    assert check.errors == ""
    assert check.result["findings"] == []
    assert check.result["usable"] == check.result["files"] == 12


def test_json_has_its_keys(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    (folder / "train/cats/0.jpg").write_bytes(b"GIF89a")
    result = Check(folder, capsys).result
    assert list(result) == [
        *("folder", "ok", "errors", "warnings", "training_size", "files", "usable"),
        *("passed_over", "classes", "sizes", "findings", "set_aside"),
    ]
    assert result["classes"][0] == {
        "split": "train", "label": "cats", "files": 3, "broken": 1, "turned": 0
    }  # fmt: skip
    assert result["sizes"] == {
        "smallest": [200, 160], "median": [200, 160], "largest": [200, 160]
    }  # fmt: skip
    assert result["findings"] == [
        {
            "kind": "broken",
            "severity": "error",
            "title": "broken pictures: training and serving refuse them",
            "count": 1,
            "items": [
                {
                    "path": "train/cats/0.jpg",
                    "others": [],
                    "reason": "not-a-picture",
                    "detail": "not a JPEG: it looks like a GIF",
                }
            ],
        }
    ]
    assert (result["ok"], result["errors"], result["warnings"]) == (False, 1, 0)
    assert result["set_aside"] is None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _lead_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing.jpg")


def _lead_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _be_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_truncate, "truncated"),
        (lambda path: path.write_bytes(b""), "not-a-picture"),
        (lambda path: picture(5).save(path, "PNG"), "not-a-picture"),
        (_lead_nowhere, "broken-link"),
        (_lead_to_itself, "broken-link"),
        (_be_a_pipe, "not-a-picture"),
    ],
)
def test_broken_file_is_named_with_its_reason(
    spoil: Callable[[Path], None], reason: str, tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    spoil(folder / "train/dogs/1.jpg")
    check = Check(folder, capsys)
    assert check.status == 1
    assert check.kinds() == ["broken"]
    [item] = check.items("broken")
    assert (item["path"], item["reason"]) == ("train/dogs/1.jpg", reason)
    assert item["detail"]
    assert check.errors == (f"convserve-train: {folder} would spoil a training: 1 error (broken)\n")


def test_file_too_large_to_be_a_photograph_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    path = folder / "train/dogs/1.jpg"
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)
    read = Path.read_bytes

    def refuse(opened: Path) -> bytes:
        assert opened != path
        return read(opened)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    [item] = Check(folder, capsys).items("broken")
    assert item["reason"] == "too-large"


def test_unreadable_file_is_broken_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "secret.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    folder = fair_set(tmp_path / "pets")
    save(folder / "train/cats/secret.jpg", picture(99))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    check = Check(folder, capsys, "--fix")
    [item] = check.items("broken")
    assert (item["reason"], item["detail"]) == (
        "unreadable",
        "it cannot be read: Permission denied",
    )
    assert check.status == 1
    assert check.moved() == {}


def test_every_broken_file_of_the_odd_ones_is_named(tmp_path: Path, capsys: Capsys) -> None:
    index = DATA / "jpeg_odd" / "INDEX.tsv"
    if not index.is_file():
        pytest.skip(f"no {index}; CONVSERVE_TEST_DATA names the folder above jpeg_odd")
    folder = fair_set(tmp_path / "pets")
    with index.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        shutil.copy(index.parent / row["file"], folder / "train/cats")
    check = Check(folder, capsys)
    reasons = {item["path"]: item["reason"] for item in check.items("broken")}
    errors = {f"train/cats/{Path(r['file']).name}" for r in rows if r["class"] == "error"}
    assert len(errors) > 100
    assert errors <= set(reasons)
    assert all(reasons.values())
    for row in rows:  # broken is what training and serving refuse, and nothing else
        reason = ""
        try:
            photos.decode((index.parent / row["file"]).read_bytes(), 150, 150)
        except PictureError as error:
            reason = error.reason
        assert reasons.get(f"train/cats/{Path(row['file']).name}", "") == reason, row
    assert check.status == 1


@pytest.mark.parametrize(
    ("image", "kind", "detail", "severity"),
    [
        (picture(99, 31, 40), "tiny", "31 x 40", "warning"),
        (picture(99, 900, 200), "elongated", "900 x 200", "warning"),
        (Image.new("RGB", (200, 200), (250, 10, 10)), "uniform",
         "brightness varies by 0.0 of 255", "warning"),
        (picture(99, 149, 200), "enlarged", "149 x 200", "note"),
        (picture(99).convert("L"), "grey", "", "note"),
        (picture(99).convert("CMYK"), "cmyk", "", "note"),
    ],
)  # fmt: skip
def test_odd_picture_is_named_and_harmless(
    image: Image.Image, kind: str, detail: str, severity: str, tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    save(folder / "train/cats/odd.jpg", image)
    check = Check(folder, capsys)
    assert check.kinds(severity) == [kind]
    [item] = check.items(kind)
    assert (item["path"], item["detail"]) == ("train/cats/odd.jpg", detail)
    assert check.status == 0


def test_turned_picture_is_counted_with_its_upright_size(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "train/cats/turned.jpg", picture(99, 900, 600), exif=exif)
    check = Check(folder, capsys)
    assert [item["detail"] for item in check.items("turned")] == ["orientation 6"]
    assert check.result["classes"][0]["turned"] == 1
    assert check.result["sizes"]["largest"] == [600, 900]
    assert check.status == 0


def test_pictures_are_decoded_at_the_size_of_the_training() -> None:
    recipe = recipe_files.find("lecture", "photos")
    assert recipe.height == recipe.width == examined.SIZE


def test_cats_and_dogs_are_fit(capsys: Capsys) -> None:
    folder = DATA / "cats_dogs"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; CONVSERVE_TEST_DATA names the folder above it")
    check = Check(folder, capsys)
    assert check.status == 0
    assert check.result["usable"] == 3_000
    # The only near duplicates of 4.5 million pairs: one photograph, saved twice.
    assert check.kinds("warning") == ["copies"]
    [item] = check.items("copies")
    assert (item["path"], item["others"]) == ("train/dogs/dog.180.jpg", ["train/dogs/dog.74.jpg"])
