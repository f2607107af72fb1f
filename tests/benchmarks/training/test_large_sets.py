import hashlib
import sys
from pathlib import Path

import pytest

from benchmarks.harness import many_photos
from benchmarks.harness.command import BenchmarkError
from benchmarks.harness.pictures import pictures
from benchmarks.training import input_share, large_sets
from benchmarks.training.input_share import Share
from benchmarks.training.large_sets import Cost
from convserve_trainer.datasets.photo_cache import MODES
from convserve_trainer.recipes import recipe_files
from tests.benchmarks.tables import cells_of

pytestmark = pytest.mark.timeout(1000)
SCRIPT = """
print("epoch     loss  accuracy", flush=True)
held = bytearray(64 * 2**20)
print("  1/1   0.2500    0.9000", flush=True)
print("input took 0.1% of the training steps' time", flush=True)
"""


def _script(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_made_photographs_differ_and_fill_both_parts_of_each_class(tmp_path: Path) -> None:
    sources = pictures(None, 2).files
    many_photos.make(tmp_path, sources, 80, 2)
    files = sorted(tmp_path.rglob("*.JPEG"))
    assert len(files) == 80
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == 80
    for part in ("train", "validation"):
        assert [len(list(folder.iterdir())) for folder in (tmp_path / part).iterdir()] != [0, 0]
    contents = {file: file.read_bytes() for file in files}
    files[3].unlink()
    many_photos.make(tmp_path, sources, 80, 2)
    assert {file: file.read_bytes() for file in files} == contents


def test_memory_is_that_of_each_phase() -> None:
    seen = large_sets.train(_script(SCRIPT), {})
    assert seen.start_s > 0
    assert seen.start_cpu_s >= 0
    assert seen.lines[-1].startswith("input took")


@pytest.mark.parametrize("script", ["print('no epoch')", f"{SCRIPT}\nraise SystemExit(3)"])
def test_failed_training_is_reported_with_its_last_lines(script: str) -> None:
    with pytest.raises(BenchmarkError, match=r"ended with status [03]:\n(no epoch|epoch )"):
        large_sets.train(_script(script), {})


def test_growth_is_that_from_the_smallest_set_to_the_largest() -> None:
    def cost(count: int, memory: int) -> Cost:
        return Cost(count, "disk", 1, 1.0, 1.0, memory, 2 * memory, 3 * memory, 1.0, 0.0)

    seen = [cost(1_000, 10_000), cost(1_000, 12_000), cost(3_000, 211_000)]
    assert large_sets.growth(seen).startswith(
        "from 1,000 to 3,000 photographs each adds 100 bytes before the first step, 200 while "
        "training, 300 at the end"
    )
    assert "not known" in large_sets.growth(seen[:2])


@pytest.mark.parametrize("more", [[], ["--without-net"]])
def test_small_set_is_measured_from_end_to_end(
    more: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(many_photos, "SOURCES", 3)
    command = ["--counts", "80", "--classes", "2", "--steps", "2", "--caches", "disk"]
    arguments = large_sets._parser().parse_args([*command, *more, "--folder", str(tmp_path)])
    large_sets.run(arguments)
    *_, first, second, _, _ = capsys.readouterr().out.splitlines()
    assert cells_of(first)[:3] == ["80", "disk", "1"]
    assert cells_of(second)[:3] == ["80", "disk", "2"]
    assert (tmp_path / "photos-80" / "train").is_dir()
    assert not list(tmp_path.glob("tmp*"))


def test_augmentation_is_that_of_best_or_none() -> None:
    lecture, best = (recipe_files.find(name, "photos") for name in ("lecture", "best"))
    assert input_share.augmentation(lecture, True).augmentation == best.augmentation
    assert input_share.augmentation(best, False).augmentation == lecture.augmentation


def test_share_of_input_is_measured_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    many_photos.make(tmp_path, pictures(None, 3).files, 80, 2)
    monkeypatch.setattr(input_share, "RECIPES", ("quick",))
    found = input_share.measured(tmp_path, rounds=2, steps=2)
    assert [(each.augmented, each.cache) for each in found] == [
        (augmented, cache) for augmented in (False, True) for cache in MODES
    ]
    for each in found:
        assert len(each.share) == len(each.step_ms) == 2
        assert all(0 <= share < 1 for share in each.share)
        assert all(ms > 0 for ms in each.step_ms)
    seen = Share("best", True, "none", [100.0, 120.0, 110.0], [0.01, 0.03, 0.02])
    *_, row = input_share._table([seen]).splitlines()
    assert cells_of(row) == ["best", "that of best", "none", "110", "2.0% (1.0%..3.0%)"]
