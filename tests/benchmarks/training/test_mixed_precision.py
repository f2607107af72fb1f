from pathlib import Path

import pytest

from benchmarks.harness.command import BenchmarkError
from benchmarks.training import mixed_precision
from benchmarks.training.mixed_precision import Step
from tests.benchmarks.tables import cells_of
from tests.trainer import idx_files
from tests.trainer.drawn import draw_parts

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("task", "recipe"), [("digits", "best"), ("photos", "lecture")])
def test_both_ways_take_turns(
    task: str,
    recipe: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    if task == "digits":
        idx_files.write(folder, [20] * 10, [1] * 10, (28, 28))
    else:
        draw_parts(folder, {"red": 24, "blue": 24}, {"red": 2, "blue": 2})
    found = mixed_precision.measured(task, recipe, folder, rounds=2, steps=1)
    assert all(time > 0 for time in (*found.float32_ms, *found.mixed_ms))
    assert len(found.float32_ms) == len(found.mixed_ms) == 2
    lines = capsys.readouterr().err.splitlines()
    turns = [line.split(": ")[1].split(",")[0] for line in lines if "mixed precision" in line]
    assert turns == ["False", "True", "True", "False"]


def test_table_has_the_median_of_the_ratios() -> None:
    row = mixed_precision._table([Step("photos", "best", [4.0, 9.0, 6.0], [2.0, 3.0, 4.0])])
    cells = ["photos/best", "6.0", "3.0", "2.00 (1.50..3.00)"]
    assert cells_of(row.splitlines()[-1]) == cells


def test_nothing_to_measure_is_a_message() -> None:
    arguments = mixed_precision._parser().parse_args([])
    with pytest.raises(BenchmarkError, match="--digits, --photos: expected a folder"):
        mixed_precision.run(arguments)
