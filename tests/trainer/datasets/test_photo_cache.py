import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from convserve_host import memory
from convserve_trainer.datasets import photo_cache
from convserve_trainer.datasets.photo_cache import PhotoCache
from convserve_trainer.errors import DataError

SHAPE = (10, 10, 3)
EACH = 10 * 10 * 3 + 32


class Usage(NamedTuple):
    free: int


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for 400 pictures, disk for 4,000; a hundred are decoded in a moment."""
    monkeypatch.setattr(memory, "available_bytes", lambda: 400 * EACH)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(4_000 * EACH))
    monkeypatch.setattr(photo_cache, "QUICK_BYTES", 50 * EACH)


def _cache(data: Path, asked: str | None = None, count: int = 2_000) -> PhotoCache:
    return PhotoCache(data, SHAPE, "photo-bilinear/1", count, asked)


def _fill(cache: PhotoCache, count: int) -> None:
    (cache.folder / "a.pixels").write_bytes(bytes(count * EACH))


@pytest.mark.parametrize(
    ("count", "asked", "expected"),
    [
        (50, None, "memory"),
        (51, None, "disk"),
        (1_000, None, "disk"),
        (1_001, None, "none"),
        (51, "memory", "memory"),
        (50, "disk", "disk"),
        (50, "none", "none"),
    ],
)
def test_cache_is_what_suits_unless_it_is_asked_for(
    tmp_path: Path, count: int, asked: str | None, expected: str
) -> None:
    assert _cache(tmp_path, asked).mode(count, None) == expected


def test_without_a_disk_memory_is_used_up_to_a_quarter(tmp_path: Path) -> None:
    assert _cache(tmp_path).mode(100, 0) == "memory"
    assert _cache(tmp_path).mode(101, 0) == "none"


def test_budget_of_the_user_is_kept(tmp_path: Path) -> None:
    assert _cache(tmp_path).mode(200, 200 * EACH) == "disk"
    assert _cache(tmp_path).mode(201, 200 * EACH) == "none"
    assert _cache(tmp_path).mode(4_001, 5_000 * EACH) == "none", "there is not so much free"
    message = r"--cache: expected at most 0.0 GB \(by --cache-gb, or free\) in .*, got 0.0 GB of"
    with pytest.raises(DataError, match=message):
        _cache(tmp_path, "disk").mode(201, 200 * EACH)


def test_caches_used_longest_ago_are_removed_for_others(tmp_path: Path) -> None:
    folders = []
    for number in range(3):
        cache = _cache(tmp_path / f"{number}")
        _fill(cache, 100)
        os.utime(cache.folder, (1_000_000_000 * 2 + number,) * 2)
        folders.append(cache.folder)
        del cache
    newest = _cache(tmp_path / "new")
    assert newest.mode(100, 300 * EACH) == "disk"
    assert [folder.exists() for folder in folders] == [False, True, True]


def test_cache_of_a_running_training_stays(tmp_path: Path) -> None:
    data = tmp_path / "running"
    code = f"""
import pathlib
from convserve_trainer.datasets.photo_cache import PhotoCache
cache = PhotoCache(pathlib.Path({os.fspath(data)!r}), {SHAPE}, "photo-bilinear/1", 2_000, None)
print(cache.folder, flush=True)
input()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        try:
            assert other.stdout is not None
            folder = Path(other.stdout.readline().strip())
            (folder / "a.pixels").write_bytes(bytes(100 * EACH))
            os.utime(folder, (1, 1))
            newest = _cache(tmp_path / "new", "disk")
            with pytest.raises(DataError, match="GB of pixels beside 0.0 GB that other trainings"):
                newest.mode(100, 150 * EACH)
            assert folder.exists()
            other.communicate("\n")
            assert newest.mode(100, 150 * EACH) == "disk"
            assert not folder.exists()
        finally:
            other.kill()


def test_what_nobody_used_for_a_month_is_removed(tmp_path: Path) -> None:
    old, recent = _cache(tmp_path / "old").folder, _cache(tmp_path / "recent").folder
    os.utime(old, (time.time() - 31 * 86_400,) * 2)
    os.utime(recent, (time.time() - 29 * 86_400,) * 2)
    _cache(tmp_path / "new")
    assert not old.exists()
    assert recent.exists()


def test_use_is_a_matter_of_the_folders_time(tmp_path: Path) -> None:
    folder = _cache(tmp_path).folder
    os.utime(folder, (1, 1))
    held = _cache(tmp_path)
    assert held.folder == folder
    assert time.time() - folder.stat().st_mtime < 3_600


def test_folder_that_cannot_be_made_matters_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _cache(tmp_path).mode(100, None) == "memory"
    assert _cache(tmp_path).mode(101, None) == "none"
    with pytest.raises(DataError, match="pixels cannot be kept in .*Not a directory; or name anot"):
        _cache(tmp_path, "disk").mode(100, None)


def test_small_set_makes_no_folder(tmp_path: Path) -> None:
    cache = _cache(tmp_path, count=40)
    assert cache.mode(40, None) == "memory"
    assert not cache.folder.exists()


def test_writer_waits_for_another_and_removes_what_killed_ones_left(tmp_path: Path) -> None:
    cache, lines = _cache(tmp_path, "disk"), []
    left = cache.folder / ".left.tmp"
    left.touch()
    with (cache.folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def say(line: str) -> None:
            lines.append(line)
            assert left.exists()
            fcntl.flock(file, fcntl.LOCK_UN)

        with cache.writing(say):
            assert not left.exists()
    assert lines == ["another training decodes these photographs: waiting for its pixels"]
