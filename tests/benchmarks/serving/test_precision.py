import json
import subprocess
import sys
from pathlib import Path

import pytest

from convserve_trainer.main import main
from tests.benchmarks.tables import tables_of
from tests.bundles import write_bundle
from tests.trainer.drawn import draw_parts

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.serving.precision")
TINY = ["--recipe", "quick", "--size", "22x24", "--batch-size", "8", "--steps", "4"]


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
def test_table_has_a_row_for_each_precision(tmp_path: Path) -> None:
    parts = {"red": 12, "blue": 12}
    folder = draw_parts(tmp_path / "red_blue", parts, parts)
    command = ["fit", "photos", *TINY, "--epochs", "2", "--data", str(folder)]
    assert main([*command, "--models", str(tmp_path)]) == 0
    file = tmp_path / "figures.json"
    options = ["--photos", str(folder), "--rounds", "2", "--seconds", "0.3", "--driver", "own"]
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "red-blue"), *options, "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [rows] = tables_of(done.stdout)
    assert [row[:2] for row in rows] == [
        ["red-blue", "float32"],
        ["red-blue", "float16"],
        ["red-blue", "int8"],
    ]
    assert [rows[0][column] for column in (4, 5, 7, 9)] == ["0.0e+00", "0.0e+00", "1.00", "1.00"]
    figures = json.loads(file.read_text())["rows"]
    sizes = [row["file_bytes"] for row in figures]
    assert sizes == sorted(sizes, reverse=True)
    for row in figures:
        assert row["score"]["total"] == 24
        assert [len(row["alone"]), len(row["loaded"])] == [2, 2]
        assert min(*row["alone"], *row["loaded"]) > 0
    assert all(0 < row["mean_difference"] <= row["largest_difference"] for row in figures[1:])


def test_bundle_without_a_recipe_says_so(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    done = subprocess.run([*COMMAND, str(bundle)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("python -m benchmarks.serving.precision: the bundle's recipe is")
