"""python -m benchmarks.serving.microbench: two versions side by side."""

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.tables import tables_of
from tests.bundles import write_bundle, write_photo_bundle

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.serving.microbench", "--repeats", "2")


def done(models: Path, against: Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--models", str(models), "--against", str(against)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_two_versions_are_measured_in_turn_and_compared(tmp_path: Path) -> None:
    first = write_bundle(tmp_path)
    write_bundle(tmp_path, version=2)
    ended = done(tmp_path, first)
    assert ended.returncode == 0, ended.stderr
    assert "largest difference of a probability: 0.0e+00" in ended.stdout.splitlines()[0]
    header = ended.stdout.splitlines()[2]
    assert "mnist/1, µs an image" in header
    assert "mnist/2, µs an image" in header
    [rows] = tables_of(ended.stdout)
    assert [row[0] for row in rows] == ["1", "16", "64"]
    assert all(float(row[3]) > 0 for row in rows)


def test_versions_of_other_images_are_not_compared(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    ended = done(tmp_path, write_photo_bundle(tmp_path))
    assert ended.returncode == 1
    assert "--against: expected images (28, 28, 1), got (150, 150, 3)" in ended.stderr
    ended = done(tmp_path, tmp_path / "no.onnx")
    assert "--against: expected a model file, got " in ended.stderr
