"""The benchmark of tables, for a moment."""

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.tables import tables_of

ROOT = Path(__file__).parents[2]


def test_command_prints_a_row_for_each_table(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.training.tables", "--counts", "1000,1100"]
    done = subprocess.run(
        [*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    [rows] = tables_of(done.stdout)
    assert [row[0] for row in rows] == ["1,000", "1,100"]
    assert [one["count"] for one in json.loads(file.read_text())["readings"]] == [1000, 1100]
