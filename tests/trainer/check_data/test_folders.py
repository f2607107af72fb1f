"""What check-data says of the folders: classes, splits, and what is passed over."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from convserve_trainer.main import main
from tests.trainer.picture_sets import Check, fair_set, picture, save

Capsys = pytest.CaptureFixture[str]


def _one_class(folder: Path) -> None:
    for split in ("train", "validation"):
        shutil.rmtree(folder / split / "dogs")


def _no_pictures(folder: Path) -> None:
    for path in folder.rglob("*.jpg"):
        path.rename(path.with_suffix(".txt"))


def _break_a_class(folder: Path) -> None:
    for path in (folder / "train/dogs").iterdir():
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "kind", "path"),
    [
        (lambda folder: shutil.rmtree(folder / "train/dogs"), "class-in-one-split", "train/dogs"),
        (lambda f: (f / "validation/birds").mkdir(), "class-in-one-split", "train/birds"),
        (lambda f: (f / "validation/birds").mkdir(), "empty-class", "validation/birds"),
        (_break_a_class, "empty-class", "train/dogs"),
        (_one_class, "too-few-classes", "."),
        (_no_pictures, "no-pictures", "."),
        (lambda f: (f / "validation").rename(f / "more"), "missing-split", "validation"),
    ],
)  # fmt: skip
def test_folders_that_spoil_a_training(
    spoil: Callable[[Path], object], kind: str, path: str, tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    spoil(folder)
    check = Check(folder, capsys)
    assert check.status == 1
    assert check.paths(kind) == [path]


def test_missing_split_names_the_folders_there_are(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    (folder / "validation").rename(folder / "more")
    [item] = Check(folder, capsys).items("missing-split")
    assert item["detail"] == "there is no such folder; there are: more"


def test_names_are_the_same_in_nfc_and_nfd_and_folders_of_systems_no_classes(
    tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path)
    for split, name in (("train", "cafe\u0301"), ("validation", "caf\u00e9")):
        (folder / split / "cats").rename(folder / split / name)
        (folder / split / "__MACOSX").mkdir()
        save(folder / split / name / "@eaDir/0.jpg/thumbnail.jpg", picture(1))
    check = Check(folder, capsys)
    assert (check.status, check.kinds(), check.kinds("warning")) == (0, [], [])
    assert {count["label"] for count in check.result["classes"]} == {"caf\u00e9", "dogs"}


def test_empty_folder_is_an_error(tmp_path: Path, capsys: Capsys) -> None:
    check = Check(tmp_path, capsys)
    assert check.status == 1
    assert check.kinds() == ["no-pictures", "too-few-classes"]


def test_classes_without_splits_are_checked_too(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets") / "train"
    check = Check(folder, capsys)
    assert check.status == 0
    assert [(c["split"], c["label"]) for c in check.result["classes"]] == [
        ("all", "cats"),
        ("all", "dogs"),
    ]
    shutil.copy(folder / "cats/0.jpg", folder / "dogs/cat.jpg")
    assert Check(folder, capsys).kinds() == ["two-labels"]


def test_classes_of_unequal_size_are_a_warning(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets", each=2)
    save(folder / "train/cats/2.jpg", picture(90))
    assert Check(folder, capsys).kinds("warning") == []
    save(folder / "train/cats/3.jpg", picture(91))
    check = Check(folder, capsys)
    assert [item["detail"] for item in check.items("unbalanced")] == ["cats has 4 pictures, dogs 2"]
    assert check.status == 0


def test_what_no_training_reads_is_passed_over_and_pictures_among_it_named(
    tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    save(folder / "train/cats/really.png", picture(90))
    save(folder / "train/cats/deep/1.jpg", picture(91))
    save(folder / "train/stray.jpg", picture(92))
    save(folder / "rest/cats/1.jpg", picture(93))
    (folder / "train/cats/.hidden.jpg").write_bytes(b"")
    (folder / "train/cats/notes.txt").write_text("three cats")
    (folder / "train/cats/loop").symlink_to(folder)
    check = Check(folder, capsys)
    assert check.status == 0
    assert check.result["files"] == 12
    assert check.result["passed_over"] == {"folder": 3, "other": 2, "hidden": 1, "outside": 1}
    assert check.paths("other-suffix") == ["train/cats/really.png"]
    assert check.paths("deeper") == ["train/cats/deep", "train/cats/loop"]
    assert check.paths("outside") == ["train/stray.jpg"]
    assert check.paths("not-read") == ["rest"]


@pytest.mark.parametrize("name", ["a.JPG", "a.Jpeg", "a.jpe", "a.jfif"])
def test_suffixes_of_pictures(name: str, tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    save(folder / "train/cats" / name, picture(90))
    assert Check(folder, capsys).result["usable"] == 13


def test_no_folder_is_wrong_usage(tmp_path: Path, capsys: Capsys) -> None:
    assert main(["check-data", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"convserve-train: no folder {tmp_path / 'none'}\n"


def test_other_formats_and_folders_within_classes_are_checked_if_they_are_asked_for(
    tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    picture(90).save(folder / "train/cats/colour.png")
    picture(91).convert("L").save(folder / "train/cats/grey.webp")
    (folder / "train/dogs/deep/er").mkdir(parents=True)
    same = picture(90)
    same.save(folder / "train/dogs/deep/er/same.PNG")
    (folder / "train/dogs/deep/up").symlink_to(folder / "train/dogs")
    (folder / "train/dogs/broken.gif").write_bytes(b"GIF89a")
    assert Check(folder, capsys).status == 0, "JPEGs alone"
    check = Check(folder, capsys, "--formats", "all", "--subfolders", "use")
    assert check.status == 1
    assert check.kinds() == ["broken", "two-labels"]
    assert check.paths("broken") == ["train/dogs/broken.gif"]
    [item] = check.items("two-labels")
    assert [item["path"], *item["others"]] == [
        "train/cats/colour.png",
        "train/dogs/deep/er/same.PNG",
    ]
    assert check.paths("grey") == ["train/cats/grey.webp"]
    assert check.result["files"] == 16


def test_copy_in_test_stays_and_the_one_that_is_trained_on_goes(
    tmp_path: Path, capsys: Capsys
) -> None:
    folder = fair_set(tmp_path / "pets")
    (folder / "validation").rename(folder / "test")
    shutil.copy(folder / "test/cats/0.jpg", folder / "train/cats/copy.jpg")
    check = Check(folder, capsys, "--fix")
    assert check.kinds() == ["in-both-splits"]
    assert list(check.moved().values()) == ["in-both-splits"]
    assert not (folder / "train/cats/copy.jpg").exists()
