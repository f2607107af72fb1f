import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.servers import FRONTS
from benchmarks.serving.overload_points import WORKLOADS
from tests.benchmarks.tables import tables_of
from tests.bundles import write_bundle, write_photo_bundle

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs a CPU for the server and one for the generator"
)
COMMAND = (sys.executable, "-m", "benchmarks.serving.overload")
WAIT_S = 250.0
LOADS = (0.1,)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models")
    write_photo_bundle(tmp_path / "models")
    return tmp_path / "models"


def test_command_measures_every_way_of_sending_on_both_fronts(models: Path, tmp_path: Path) -> None:
    figures, plot, again = (tmp_path / name for name in ("all.json", "all.svg", "again.png"))
    options = ["--models", str(models), "--seconds", "0.3", "--loads", *map(str, LOADS)]
    # Long, so that a busy machine does not make calls expire.
    options += ["--photo-deadline-ms", "3000", "--digit-deadline-ms", "3000"]
    done = subprocess.run(
        [*COMMAND, *options, "--json", str(figures), "--plot", str(plot)],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (table,) = tables_of(done.stdout)
    expected = [
        (workload.name, f"{front}, today")
        for workload in WORKLOADS
        for front in FRONTS
        for _ in LOADS
    ]
    assert [tuple(row[:2]) for row in table] == expected
    points = json.loads(figures.read_text())["points"]
    for point in points:
        assert point["capacity"] > 0
        assert (point["refused"], point["expired"], point["others"]) == (0, 0, {}), point
        assert 0 <= point["too_late"] <= 1
        assert point["memory_mib"] > 1
    # The worker of a real server has counted them.
    assert any(point["good"] > 0 for point in points)
    svg = plot.read_text()
    assert "<title>" in svg
    assert all(workload.name in svg for workload in WORKLOADS)

    shown = subprocess.run(
        [*COMMAND, "--show", str(figures), "--plot", str(again)],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == done.stdout
    assert again.read_bytes().startswith(b"\x89PNG")
