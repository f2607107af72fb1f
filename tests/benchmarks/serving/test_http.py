import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.h2load import H2loadDriver
from tests.benchmarks.tables import figures_of, tables_of
from tests.bundles import write_bundle

ROOT = Path(__file__).parents[3]
WAIT_S = 250.0


@pytest.mark.skipif(not H2loadDriver.is_installed(), reason="h2load not installed")
def test_command_prints_a_row_for_each_way_and_load(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    command = [sys.executable, "-m", "benchmarks.serving.http", "--models", str(tmp_path)]
    done = subprocess.run(
        [*command, "--rounds", "1", "--seconds", "0.4"],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (rows,) = tables_of(done.stdout)
    pixels = ("gRPC, Classify", "HTTP, v2, bytes", "HTTP, v2, JSON")
    pictures = ("gRPC, Classify, PNG", "HTTP, classify, PNG")
    assert [row[:3] for row in rows] == [
        [callers, "1", name] for ways in (pixels, pictures) for callers in ("1", "16", "64")
        for name in ways
    ]  # fmt: skip
    assert min(figures_of(text for row in rows for text in row[3:])) > 0
