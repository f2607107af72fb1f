"""What callers notice of a reload, and which batch sizes loads choose: the two commands."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.reloading import stepped_back
from tests.benchmarks.tables import tables_of
from tests.bundles import write_bundle

ROOT = Path(__file__).parents[3]
WAIT_S = 250.0


def command(name: str, *options: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.serving.{name}", *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        # Seconds of begin and end, and the version.
        ([(0, 1, 1), (1, 2, 2), (2, 3, 2)], 0),
        # It began before version 2 had answered anybody.
        ([(0, 1, 1), (1, 3, 2), (2, 4, 1)], 0),
        ([(0, 1, 1), (1, 3, 2), (3.5, 4, 1), (3.5, 5, 1), (4, 6, 2)], 2),
        # A failure is of no version.
        ([(0, 1, 2), (2, 3, 0)], 0),
    ],
)
def test_answer_steps_back_if_its_call_began_after_a_newer_one(
    calls: list[tuple[float, float, int]], expected: int
) -> None:
    began, ended, version = np.array(calls, np.float64).T
    assert stepped_back(began, ended, version) == expected


def test_reloads_are_counted_for_each_number_of_workers(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    file = tmp_path / "figures.json"
    options = ["--models", tmp_path, "--reloads", 1, "--workers", 1, 2, "--json", file]
    [rows] = tables_of(command("reload", *options, "--flags=--scan-s 0.1"))
    assert [row[:2] for row in rows] == [["1", "1"], ["2", "1"]]
    assert [row[3:5] for row in rows] == [["0", "0"], ["0", "0"]]
    for result in json.loads(file.read_text())["results"]:
        assert result["calls"] > 0
        assert result["ratio"] == result["p99_ms"] / result["usual_p99_ms"]


def test_every_size_has_its_loads_and_images_a_second(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    options = ["--models", tmp_path, "--loads", 2, "--workers", 2, "--sizes", "1,64"]
    options += ["--seconds", "0.1", "--rounds", 1, "--driver", "own"]
    [rows] = tables_of(command("batch_sizes", *options))
    # A net that takes next to nothing is run in batches of any size.
    assert [row[:3] for row in rows] == [["2", "1", "0"], ["2", "64", "4"]]
    assert max(float(row[4]) for row in rows) == 1.0
