import os
import shutil
from pathlib import Path

import pytest

from convserve.command.picture_paths import find, suffixes_of


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        *("b.jpg", "a.JPEG", "c.jpe", "d.JfIf", "e.png", "notes.txt", "jpg", ".hidden.jpg"),
        *("z/1.jpg", "m/2.jpg", "m/deep/er/3.jpg", ".git/4.jpg", "müll/猫.jpg", "x.jpg/5.jpg"),
    ):
        file = tmp_path / "top" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "top"


JPEGS = suffixes_of(("JPEG",))


def paths(*named: str, suffixes: tuple[str, ...] = JPEGS) -> list[str]:
    return [found.path for found in find(named, suffixes)]


@pytest.mark.usefixtures("tree")
def test_folder_gives_its_pictures_by_name_and_then_those_of_its_folders() -> None:
    assert paths("top") == [
        *("top/a.JPEG", "top/b.jpg", "top/c.jpe", "top/d.JfIf"),
        *(
            "top/m/2.jpg",
            "top/m/deep/er/3.jpg",
            "top/müll/猫.jpg",
            "top/x.jpg/5.jpg",
            "top/z/1.jpg",
        ),
    ]
    assert "top/e.png" in paths("top", suffixes=suffixes_of(("JPEG", "PNG")))


def test_folders_of_systems_are_passed_over(tree: Path) -> None:
    for name in ("@eaDir", "__MACOSX", "lost+found"):
        (tree / "z" / name).mkdir()
        (tree / "z" / name / "thumbnail.jpg").touch()
    assert paths("top/z") == ["top/z/1.jpg"]
    assert paths("top/z/@eaDir") == ["top/z/@eaDir/thumbnail.jpg"], "it was named"


@pytest.mark.usefixtures("tree")
def test_what_is_named_is_read_in_its_order_whatever_it_is_called() -> None:
    named = ["top/notes.txt", "-", "top/z", "top/.hidden.jpg", "absent.jpg"]
    assert paths(*named) == ["top/notes.txt", "-", "top/z/1.jpg", "top/.hidden.jpg", "absent.jpg"]
    found = list(find(named, JPEGS))
    assert [one.endless for one in found] == [False, True, False, False, False]
    assert isinstance(found[4].error, FileNotFoundError)
    assert [one.error for one in found[:4]] == [None] * 4


def test_links_are_followed_and_loops_end(tree: Path) -> None:
    (tree / "z" / "up").symlink_to(tree)
    (tree / "z" / "self").symlink_to("self")
    (tree / "z" / "self.jpg").symlink_to("self.jpg")
    (tree / "z" / "nowhere.jpg").symlink_to("nothing")
    (tree / "z" / "linked.jpg").symlink_to(tree / "b.jpg")
    (tree / "z" / "twice").symlink_to(tree / "m")
    assert paths("top/z") == [
        *("top/z/1.jpg", "top/z/linked.jpg", "top/z/nowhere.jpg", "top/z/self.jpg"),
        "top/z/twice/2.jpg",
        "top/z/twice/deep/er/3.jpg",
        *("top/z/up/a.JPEG", "top/z/up/b.jpg", "top/z/up/c.jpe", "top/z/up/d.JfIf"),
        *("top/z/up/müll/猫.jpg", "top/z/up/x.jpg/5.jpg"),
    ]


@pytest.mark.usefixtures("tree")
def test_folder_that_is_named_twice_is_gone_through_twice() -> None:
    assert paths("top/z", "top/z") == ["top/z/1.jpg"] * 2


def test_pipe_in_a_folder_is_passed_over_and_a_named_one_is_endless(tree: Path) -> None:
    os.mkfifo(tree / "z" / "pipe.jpg")
    assert paths("top/z") == ["top/z/1.jpg"]
    (found,) = find(["top/z/pipe.jpg"], JPEGS)
    assert found.endless


def test_folder_without_pictures_says_so(tree: Path) -> None:
    (tree / "none" / "deep").mkdir(parents=True)
    (found,) = find(["top/none"], JPEGS)
    assert found.path == "top/none"
    assert str(found.error) == "no pictures in this folder (.jpg, .jpeg, .jpe, .jfif)"


def test_folders_are_read_one_at_a_time_and_one_that_is_gone_is_named(tree: Path) -> None:
    found = find(["top"], JPEGS)
    assert next(found).path == "top/a.JPEG"
    shutil.rmtree(tree / "m")
    (tree / "z" / "late.jpg").write_bytes(b"")
    rest = {one.path: one.error for one in found}
    assert isinstance(rest["top/m"], FileNotFoundError)
    assert "top/z/late.jpg" in rest


def test_name_that_is_no_text_is_accepted(tree: Path) -> None:
    odd = os.fsencode(tree / "z") + b"/\xff.jpg"
    with open(odd, "wb"):
        pass
    assert [os.fsencode(path) for path in paths("top/z")] == [b"top/z/1.jpg", b"top/z/\xff.jpg"]
