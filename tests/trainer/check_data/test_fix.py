"""check-data --fix: moves, never deletes, and says what it did."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convserve_trainer.check_data import moves
from convserve_trainer.main import main
from tests.trainer.picture_sets import Check, fair_set, files, picture, save

Capsys = pytest.CaptureFixture[str]


def _spoilt(folder: Path) -> Path:
    """Makes a set with one fault of each kind that can be moved away."""
    fair_set(folder)
    (folder / "train/cats/broken.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(folder / "train/cats/0.jpg", folder / "train/cats/copy.jpg")
    shutil.copy(folder / "validation/dogs/1.jpg", folder / "train/dogs/leak.jpg")
    save(folder / "train/cats/both.jpg", picture(50))
    shutil.copy(folder / "train/cats/both.jpg", folder / "train/dogs/both.jpg")
    with Image.open(folder / "validation/cats/2.jpg") as image:
        save(folder / "train/cats/anew.jpg", image, quality=50)
    return folder


def test_fix_moves_what_spoils_and_the_next_run_is_clean(tmp_path: Path, capsys: Capsys) -> None:
    folder = _spoilt(tmp_path / "pets")
    aside = tmp_path / "pets-set-aside"
    before = {path.name: path.read_bytes() for path in files(folder)}
    count = len(files(folder))
    check = Check(folder, capsys, "--fix")
    assert check.status == 0
    assert check.errors == ""
    assert check.moved() == {
        "pets/train/cats/broken.jpg": "broken",
        "pets/train/cats/copy.jpg": "copies",
        "pets/train/dogs/leak.jpg": "in-both-splits",
        "pets/train/cats/anew.jpg": "in-both-splits",
        "pets/train/cats/both.jpg": "two-labels",
        "pets/train/dogs/both.jpg": "two-labels",
    }
    assert check.result["set_aside"]["left"] == []
    assert check.result["ok"]
    assert len(files(folder, aside)) == count
    for path in files(aside):
        assert path.read_bytes() == before[path.name]
    assert (aside / "two-labels/train/dogs/both.jpg").is_file()

    again = Check(folder, capsys, "--fix")
    assert again.status == 0
    assert again.result["findings"] == []
    assert again.moved() == {}


def test_manifest_undoes_everything(tmp_path: Path, capsys: Capsys) -> None:
    folder = _spoilt(tmp_path / "pets")
    names = sorted(files(folder))
    Check(folder, capsys, "--fix")
    header, *lines = (tmp_path / "pets-set-aside/moved.tsv").read_text().splitlines()
    assert header == "from\tto\treason"
    assert len(lines) == 6
    for line in lines:
        source, target, _ = line.split("\t")
        (tmp_path / target).rename(tmp_path / source)
    assert sorted(files(folder)) == names


def test_file_in_the_way_is_not_overwritten(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    set_aside = tmp_path / "pets-set-aside/broken/train/cats"
    for content in (b"first", b"second", b"third"):
        (folder / "train/cats/bad.jpg").write_bytes(content)
        assert Check(folder, capsys, "--fix").status == 0
    contents = {path.name: path.read_bytes() for path in set_aside.iterdir()}
    assert contents == {"bad.jpg": b"first", "bad-2.jpg": b"second", "bad-3.jpg": b"third"}
    lines = (tmp_path / "pets-set-aside/moved.tsv").read_text().splitlines()
    assert [line.split("\t")[1].rpartition("/")[2] for line in lines] == ["to", *contents]


def test_what_cannot_be_moved_away_still_fails(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    for path in (folder / "train/dogs").iterdir():
        path.write_bytes(b"")
    check = Check(folder, capsys, "--fix")
    assert check.status == 1
    assert [finding["kind"] for finding in check.result["set_aside"]["left"]] == ["empty-class"]
    assert check.errors.endswith("would spoil a training: 1 error (empty-class)\n")


def test_names_of_any_bytes_keep_report_and_manifest_whole(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    names = [
        "new\nline.jpg",
        "tab\tand\\.jpg",
        "été 猫.jpg",
        os.fsdecode(b"\xff\xfe.jpg"),
        "\x1b[1m.jpg",
    ]
    for name in names:
        (folder / "train/cats" / name).write_bytes(b"GIF89a")
    assert main(["check-data", str(folder)]) == 1
    report = capsys.readouterr().out
    for line in (
        r"train/cats/new\nline.jpg: not",
        r"train/cats/tab\tand\.jpg: not",
        "train/cats/été 猫.jpg: not",
        r"train/cats/\udcff\udcfe.jpg: not",
        r"train/cats/\x1b[1m.jpg: not",
    ):
        assert f"    {line}" in report.splitlines() or f"    {line} a JPEG" in report
    check = Check(folder, capsys, "--fix")
    assert check.status == 0
    assert {os.path.basename(path) for path in check.moved()} == set(names)
    lines = (tmp_path / "pets-set-aside/moved.tsv").read_text().splitlines()
    assert len(lines) == 1 + len(names)
    assert all(line.count("\t") == 2 for line in lines)
    assert any(r"/tab\tand\\.jpg" in line for line in lines)


def test_link_to_a_copy_goes_and_the_file_stays(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    (folder / "train/cats/0-link.jpg").symlink_to("0.jpg")
    (folder / "validation/dogs/1-link.jpg").symlink_to("../../train/dogs/1.jpg")
    check = Check(folder, capsys, "--fix")
    assert check.status == 0
    assert check.moved() == {
        "pets/train/cats/0-link.jpg": "copies",
        "pets/validation/dogs/1-link.jpg": "in-both-splits",
    }
    moved = tmp_path / "pets-set-aside/copies/train/cats/0-link.jpg"
    assert moved.is_symlink()
    assert os.readlink(moved) == "0.jpg"


def test_link_out_of_the_set_is_moved_as_a_link(tmp_path: Path, capsys: Capsys) -> None:
    folder = fair_set(tmp_path / "pets")
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"no picture")
    (folder / "train/cats/link.jpg").symlink_to(outside)
    assert Check(folder, capsys, "--fix").status == 0
    assert outside.read_bytes() == b"no picture"
    assert (tmp_path / "pets-set-aside/broken/train/cats/link.jpg").readlink() == outside


def test_files_behind_a_linked_folder_stay(tmp_path: Path, capsys: Capsys) -> None:
    """They are the very files of the other split: moving them would empty it."""
    folder = fair_set(tmp_path / "pets")
    shutil.rmtree(folder / "train/cats")
    (folder / "train/cats").symlink_to("../validation/cats")
    check = Check(folder, capsys, "--fix")
    assert check.status == 1
    assert check.moved() == {}
    assert len(check.result["set_aside"]["behind_links"]) == 3
    assert len(list((folder / "validation/cats").iterdir())) == 3


def test_set_given_by_a_link_or_a_dot_is_set_aside_beside_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    folder = _spoilt(tmp_path / "disk/pets")
    (tmp_path / "link").symlink_to(folder)
    assert Check(tmp_path / "link", capsys, "--fix").status == 0
    assert len(files(tmp_path / "disk/pets-set-aside")) == 6
    (folder / "train/cats/bad.jpg").write_bytes(b"")
    monkeypatch.chdir(folder)
    assert Check(Path(), capsys, "--fix").status == 0
    assert len(files(tmp_path / "disk/pets-set-aside")) == 7


def _fail_after(moves: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, made = os.rename, list[object]()

    def fail(source: Path, target: Path) -> None:
        if len(made) == moves:
            raise OSError(code, os.strerror(code), str(source))
        made.append(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)


def test_disk_that_refuses_ends_with_a_line_and_a_true_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    folder = _spoilt(tmp_path / "pets")
    count = len(files(folder))
    _fail_after(2, errno.EROFS, monkeypatch)
    assert main(["check-data", str(folder), "--fix"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "not everything could be set aside: " in message
    assert f"Read-only file system; 2 files were moved and are listed in {tmp_path}" in message
    aside = tmp_path / "pets-set-aside"
    listed = [line.split("\t")[1] for line in (aside / "moved.tsv").read_text().splitlines()[1:]]
    assert sorted(tmp_path / path for path in listed) == sorted(files(aside))
    assert len(listed) == 2
    assert len(files(folder, aside)) == count


def test_folder_beside_that_cannot_be_made_moves_nothing(tmp_path: Path, capsys: Capsys) -> None:
    folder = _spoilt(tmp_path / "pets")
    count = len(files(folder))
    (tmp_path / "pets-set-aside").write_text("a file is in the way")
    assert main(["check-data", str(folder), "--fix"]) == 1
    assert capsys.readouterr().err.endswith("; nothing was moved\n")
    assert len(files(folder)) == count


def test_full_disk_takes_the_line_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    def short(file: Any, data: bytes) -> None:
        file.write(data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = _spoilt(tmp_path / "pets")
    count = len(files(folder))
    monkeypatch.setattr(moves, "_write", short)
    assert main(["check-data", str(folder), "--fix"]) == 1
    assert "No space left on device; nothing was moved" in capsys.readouterr().err
    assert len(files(folder)) == count
    assert (tmp_path / "pets-set-aside/moved.tsv").read_bytes() == b""


def test_another_disk_gets_a_whole_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    folder = _spoilt(tmp_path / "pets")
    (folder / "train/cats/nowhere.jpg").symlink_to("nothing")
    count = len(files(folder))
    _fail_after(0, errno.EXDEV, monkeypatch)
    check = Check(folder, capsys, "--fix")
    assert check.status == 0
    aside = tmp_path / "pets-set-aside"
    assert len(check.moved()) == len(files(aside)) == 7
    assert len(files(folder, aside)) == count
    assert (aside / "broken/train/cats/nowhere.jpg").is_symlink()


def test_another_disk_that_is_full_leaves_the_original_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    def full(source: Path, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    folder = _spoilt(tmp_path / "pets")
    count = len(files(folder))
    _fail_after(0, errno.EXDEV, monkeypatch)
    monkeypatch.setattr(shutil, "copy2", full)
    assert main(["check-data", str(folder), "--fix"]) == 1
    assert "nothing was moved" in capsys.readouterr().err
    assert len(files(folder)) == count
    assert files(tmp_path / "pets-set-aside") == []
