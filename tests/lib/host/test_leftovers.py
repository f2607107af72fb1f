import os
import shutil
import time
from pathlib import Path

import pytest

from convserve_host import leftovers


def aged(path: Path, age_s: float) -> Path:
    """Sets when a file or folder was changed last."""
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (".1-aa.tmp", ".2-bb.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"half")
    (tmp_path / ".train.x.tmp").write_bytes(b"half")
    return tmp_path


def test_what_is_old_and_belongs_to_nobody_is_removed(folder: Path) -> None:
    old = [aged(folder / name, 2 * leftovers.OLD_S) for name in (".1-aa.tmp", ".train.x.tmp")]
    assert leftovers.remove(folder) == old
    assert [path.name for path in folder.iterdir()] == [".2-bb.tmp"]


def test_what_is_young_stays(folder: Path) -> None:
    assert leftovers.remove(folder) == []


def test_what_a_process_holds_stays_until_it_ends(folder: Path) -> None:
    held = aged(folder / ".1-aa.tmp", 2 * leftovers.OLD_S)
    with leftovers.held(held):
        assert leftovers.remove(folder) == []
        assert leftovers.remove(folder) == []
    assert leftovers.remove(folder) == [held]


def test_other_names_stay(tmp_path: Path) -> None:
    for name in ("1", ".hidden", "notes.tmp"):
        (tmp_path / name).mkdir()
        aged(tmp_path / name, 2 * leftovers.OLD_S)
    assert leftovers.remove(tmp_path) == []


def test_what_cannot_be_removed_stays_and_the_others_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".1-aa.tmp", ".2-bb.tmp"):
        aged(folder / name, 2 * leftovers.OLD_S)
    rmtree = shutil.rmtree

    def refuse(path: Path) -> None:
        if path.name == ".1-aa.tmp":
            raise PermissionError(13, "Permission denied")
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert leftovers.remove(folder) == [folder / ".2-bb.tmp"]
