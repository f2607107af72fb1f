import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from convserve_trainer.datasets import photo_folders, photo_methods, skipped
from convserve_trainer.datasets.photo_folders import Choice
from convserve_trainer.datasets.photo_list import Photo
from convserve_trainer.errors import DataError, TrainerError, UsageError
from tests.trainer.drawn import draw, draw_parts


def _photos(count: int, classes: int = 2) -> list[Photo]:
    """Photographs of made-up content, sorted by class as a scan gives them."""
    return [
        Photo(Path(), f"{n}.jpg", n * classes // count, hashlib.sha256(b"%d" % n).hexdigest())
        for n in range(count)
    ]


def test_labels_are_the_sorted_class_folders(tmp_path: Path) -> None:
    found = photo_folders.classes(draw(tmp_path, {"red": 2, "blue": 1, "green": 1}))
    assert found.labels == ("blue", "green", "red")
    assert [(photo.name, photo.label) for photo in found.photos] == [
        ("blue/000.jpg", 0),
        ("green/000.jpg", 1),
        ("red/000.jpg", 2),
        ("red/001.jpg", 2),
    ]
    assert all(photo.path == tmp_path / photo.name for photo in found.photos)
    assert found.skipped == ()


def test_names_decide_what_counts_as_a_jpeg(tmp_path: Path) -> None:
    folder = draw(tmp_path, {"red": 1, "blue": 1})
    for name in ("a.JPG", "b.jpeg", "c.Jpe", "d.jfif"):
        shutil.copy(folder / "red/000.jpg", folder / "red" / name)
    for name in ("._a.jpg", "Thumbs.db", "e.png", "jpg"):
        (folder / "red" / name).touch()
    (folder / "red/folder.jpg").mkdir()
    (folder / "README").touch()
    (folder / ".git").mkdir()
    os.symlink("nowhere", folder / "red/broken link.jpg")
    found = photo_folders.classes(folder)
    names = [Path(str(photo.path)).name for photo in found.photos if photo.label == 1]
    expected = ["000.jpg", "a.JPG", "b.jpeg", "broken link.jpg", "c.Jpe", "d.jfif"]
    assert names == expected, "a link to nothing is unreadable, not passed over"
    kinds = Counter(entry.kind for entry in found.skipped)
    assert kinds == {"system": 2, "file": 4, "folder": 1}


@pytest.mark.parametrize(
    "name", ["@eaDir", "__MACOSX", "lost+found", ".ipynb_checkpoints", "$RECYCLE.BIN"]
)
@pytest.mark.parametrize("empty", [True, False])
def test_folder_of_a_system_is_no_class(name: str, empty: bool, tmp_path: Path) -> None:
    folder = draw(tmp_path, {"red": 1, "blue": 1})
    for where in (folder / name, folder / "red" / name):
        where.mkdir()
        if not empty:
            shutil.copy(folder / "red/000.jpg", where / "thumbnail.jpg")
    found = photo_folders.classes(folder)
    assert found.labels == ("blue", "red")
    assert len(found.photos) == 2
    [line] = skipped.lines(found.skipped)
    assert line == (
        f"not used: 2 that are hidden or a system's own: {folder / name}, {folder / 'red' / name}"
    )


def test_pictures_deeper_than_their_class_are_counted_by_folder(tmp_path: Path) -> None:
    folder = draw(tmp_path, {"red": 1, "blue": 1})
    for name, count in (("a", 1), ("b", 2), ("c", 0), ("d", 3), ("e", 4)):
        (folder / "red" / name / "deeper").mkdir(parents=True)
        for number in range(count):
            (folder / "red" / name / "deeper" / f"{number}.jpg").touch()
    rule = (
        ": pictures lie directly in the folder of their class, not in folders within it "
        "(--subfolders use)"
    )
    assert skipped.lines(photo_folders.classes(folder).skipped) == [
        f"not used: {folder}/red/a, 1 file{rule}",
        f"not used: {folder}/red/b, 2 files{rule}",
        f"not used: {folder}/red/c, 0 files{rule}",
        "not used: 2 more folders within classes, 7 files",
    ]


def test_class_whose_pictures_are_all_deeper_is_refused(tmp_path: Path) -> None:
    folder = draw(tmp_path, {"red": 1, "blue": 1})
    (folder / "red/all").mkdir()
    (folder / "red/000.jpg").rename(folder / "red/all/000.jpg")
    with pytest.raises(DataError, match="other entry; pictures lie directly in it, not in folders"):
        photo_folders.classes(folder)


def test_folders_within_a_class_are_of_the_class_if_that_is_chosen(tmp_path: Path) -> None:
    folder = draw(tmp_path, {"red": 2, "blue": 1})
    (folder / "red/a/deeper").mkdir(parents=True)
    (folder / "red/.hidden").mkdir()
    shutil.copy(folder / "red/000.jpg", folder / "red/.hidden/no.jpg")
    (folder / "red/000.jpg").rename(folder / "red/a/deeper/000.jpg")
    (folder / "red/a/notes.txt").touch()
    (folder / "red/a/up").symlink_to(folder / "red", target_is_directory=True)
    found = photo_folders.classes(folder, Choice(subfolders=True))
    names = [photo.name for photo in found.photos]
    assert names == ["blue/000.jpg", "red/001.jpg", "red/a/deeper/000.jpg"], "each once"
    assert {(entry.path.name, entry.kind) for entry in found.skipped} == {
        ("notes.txt", "file"),
        (".hidden", "system"),
    }


def test_other_formats_are_pictures_if_they_are_chosen(tmp_path: Path) -> None:
    folder = draw(tmp_path, {"red": 1, "blue": 1})
    for name in ("a.PNG", "b.webp", "c.gif", "d.bmp"):
        (folder / "red" / name).touch()
    every = Choice(suffixes=photo_methods.suffixes("picture-bilinear/1"))
    found = photo_folders.classes(folder, every)
    assert [Path(str(photo.path)).name for photo in found.photos if photo.label == 1] == [
        *("000.jpg", "a.PNG", "b.webp", "c.gif")
    ]
    [line] = skipped.lines(found.skipped, every.suffixes)
    assert line.startswith("not used: 1 file, no picture in a class's folder by name (.jpg, ")
    [line] = skipped.lines(photo_folders.classes(folder).skipped)
    assert line.startswith("not used: 4 files, no JPEG in a class's folder by name (.jpg, .jpeg, ")
    assert "; 3 of them with --formats all: " in line
    (folder / "red/000.jpg").unlink()
    with pytest.raises(DataError, match="; PNG, WebP and GIF are read with --formats all$"):
        photo_folders.classes(folder)


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_a_name_is_the_same_however_its_accents_are_written(tmp_path: Path) -> None:
    digests = set()
    for way, name, other in (("mixed", NFD, NFC), ("composed", NFC, NFC)):
        folder = draw_parts(tmp_path / way, {"red": 2, "green": 2}, {"red": 1, "green": 1})
        (folder / "train/green").rename(folder / "train" / name)
        (folder / "validation/green").rename(folder / "validation" / other)
        train, validation = photo_folders.find(folder, None)
        assert validation is not None
        assert train.labels == validation.labels == (NFC, "red")
        assert train.photos[0].name == f"{NFC}/000.jpg"
        assert Path(str(train.photos[0].path)).exists()
        digests.add(photo_folders.digest(train.photos, validation.photos, train.labels))
    assert len(digests) == 1


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = draw(tmp_path, {"red": 1, "green": 1, "blue": 1})
    (folder / "green").rename(folder / NFC)
    (folder / "blue").rename(folder / NFD)
    with pytest.raises(DataError, match=f"has two folders {NFC} that look the same, one with"):
        photo_folders.classes(folder)


def _no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _no_classes(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()


def _one_class(folder: Path) -> None:
    shutil.rmtree(folder / "train/red")


def _empty_class(folder: Path) -> None:
    (folder / "train/green").mkdir()


def _no_jpeg(folder: Path) -> None:
    (folder / "validation/red/000.jpg").rename(folder / "validation/red/000.png")


def _other_classes(folder: Path) -> None:
    draw(folder / "validation", {"green": 1})


def _fewer_classes(folder: Path) -> None:
    draw(folder / "train", {"green": 1})


def _no_validation(folder: Path) -> None:
    shutil.rmtree(folder / "validation")


def _one_folder(folder: Path) -> None:
    _no_validation(folder)
    (folder / "train").rename(folder / "all")


def _no_text(folder: Path) -> None:
    os.mkdir(os.fsencode(folder / "train") + b"/\xff")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_folder, "no folder FOLDER"),
        (_no_classes, "FOLDER/train has no class folders: a subfolder a class, its pictures"),
        (_one_class, "FOLDER/train has one class only, blue: two or more are needed"),
        (_empty_class, "the class folder FOLDER/train/green is empty"),
        (
            _no_jpeg,
            "the class folder FOLDER/validation/red holds no JPEG (.jpg, .jpeg, .jpe, .jfif), "
            "only 1 other entry",
        ),
        (
            _other_classes,
            "FOLDER: train has the classes blue, red, validation has blue, green, red",
        ),
        (
            _fewer_classes,
            "FOLDER: train has the classes blue, green, red, validation has blue, red",
        ),
        (
            _no_validation,
            "FOLDER has train but no validation; add it, or hold out a share of FOLDER/train with "
            "--validation-split",
        ),
        (
            _one_folder,
            "FOLDER has no train and validation; if its subfolders are the classes, add "
            "--validation-split SHARE",
        ),
        (_no_text, "class folder: expected a name of printable text, got FOLDER/train/\ufffd"),
    ],
)
def test_folders_that_are_not_as_they_should_be_are_refused(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = draw_parts(tmp_path / "data", {"red": 1, "blue": 1}, {"red": 1, "blue": 1})
    photo_folders.find(folder, None)
    spoil(folder)
    with pytest.raises(TrainerError) as caught:
        photo_folders.find(folder, None)
    error = str(caught.value).replace(str(folder), "FOLDER")
    assert error.startswith(message)
    assert error.isprintable()


def test_split_of_what_is_split_already_is_refused(tmp_path: Path) -> None:
    folder = draw_parts(tmp_path / "data", {"red": 1, "blue": 1}, {"red": 1, "blue": 1})
    with pytest.raises(UsageError, match="has train and validation already: leave out --valid"):
        photo_folders.find(folder, 0.2)


def test_split_takes_one_folder_of_class_folders(tmp_path: Path) -> None:
    found, validation = photo_folders.find(draw(tmp_path, {"red": 2, "blue": 2}), 0.5)
    assert len(found.photos) == 4
    assert validation is None


def test_split_by_content_takes_about_its_share_and_no_copy_straddles() -> None:
    photos = _photos(2_000)
    copies = [replace(photo, name=f"copy of {photo.name}") for photo in photos]
    train, held_out = photo_folders.split([*photos, *copies], 0.2)
    assert len(train) + len(held_out) == 4_000
    assert 2 * 340 < len(held_out) < 2 * 460
    assert not {photo.sha256 for photo in train} & {photo.sha256 for photo in held_out}
    alone = list(photo_folders.split(photos, 0.2)[1])
    assert alone == [p for p in held_out if "copy" not in p.name]


def test_greater_share_holds_out_the_same_and_more() -> None:
    photos = _photos(200)
    less, more = (set(photo_folders.split(photos, share)[1]) for share in (0.2, 0.3))
    assert less < more


def test_limit_takes_all_classes_alike() -> None:
    limited = photo_folders.limited(_photos(30, classes=3), 7)
    assert [photo.label for photo in limited] == [0, 0, 0, 1, 1, 2, 2]
    assert limited[0].name == "0.jpg"
    assert list(photo_folders.limited(_photos(30), None)) == _photos(30)


def test_digest_covers_part_name_class_and_content() -> None:
    photos = _photos(4)
    labels = ("a", "b")
    digest = photo_folders.digest(photos[:2], photos[2:], labels)
    assert photo_folders.digest(photos[1::-1], photos[:1:-1], labels) == digest, "order is free"
    others = [
        photo_folders.digest(photos[:3], photos[3:], labels),
        photo_folders.digest(photos[:2], photos[2:], ("a", "c")),
        photo_folders.digest([replace(photos[0], name="x"), photos[1]], photos[2:], labels),
        photo_folders.digest([replace(photos[0], sha256="ab"), photos[1]], photos[2:], labels),
        photo_folders.digest(photos[:1], photos[2:], labels),
    ]
    assert len({digest, *others}) == 6


def test_name_that_no_terminal_takes_is_shown_in_one_line() -> None:
    assert skipped.shown(Path("ein Bäcker.jpg")) == "ein Bäcker.jpg"
    for name in ("two\nlines.jpg", os.fsdecode(b"\xff.jpg"), "\x1b[31m.jpg"):
        shown = skipped.shown(Path(name))
        assert shown.isprintable()
        shown.encode()


def test_error_in_the_folders_is_an_error_in_the_data() -> None:
    with pytest.raises(DataError, match="no folder none"):
        photo_folders.find(Path("none"), None)
