import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.imaging.decode import costs, rates
from benchmarks.imaging.decoders import BASELINE, OURS, Decoder, decoders
from tests.benchmarks.tables import figures_of, tables_of
from tests.jpegs import RGB, jpeg_of

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.imaging.decode")


def test_command_prints_a_row_for_each_way(tmp_path: Path) -> None:
    for colour in RGB:
        (tmp_path / f"{colour}.jpg").write_bytes(jpeg_of(colour))
    file = tmp_path / "figures.json"
    options = ["--photos", str(tmp_path), "--size", "32", "--rounds", "2", "--json", str(file)]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 photographs" in done.stdout.splitlines()[0]
    cost, rate = tables_of(done.stdout)
    assert [row[0] for row in cost] == [decoder.name for decoder in decoders()]
    for row, decoder in zip(cost, decoders(), strict=True):
        if decoder.decode is None:
            assert row[1] == "not installed: pip install opencv-python-headless"
            continue
        *times, difference = figures_of(row[1:])
        assert len(times) == 4
        assert min(times) > 0
        assert (difference == 0) == (decoder is BASELINE)
        assert difference < 10, "another picture"
    assert [row[:2] for row in rate] == [
        [decoder.name, threads] for decoder in (BASELINE, OURS) for threads in ("1", "2")
    ]
    assert min(figures_of(text for row in rate for text in row[2:])) > 0
    content = json.loads(file.read_text())
    assert [len(each["cpu_ms"]) for each in content["costs"]] == [2] * len(content["costs"])
    assert len(content["rates"]) == 4


def test_command_without_photographs_says_so(tmp_path: Path) -> None:
    options = ["--photos", str(tmp_path / "absent")]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith(f"--photos: there is no folder {tmp_path / 'absent'}\n")


def test_another_picture_and_one_thread_are_seen() -> None:
    def black(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((height, width, 3), np.uint8)

    files = [jpeg_of("red", (64, 48))] * 3
    first, other = costs([BASELINE, Decoder("black", black)], files, 16, 1)
    assert (first.difference, first.times_as_fast) == (0, 1)
    mean = sum(RGB["red"]) / 3
    assert abs(other.difference - mean) < 2
    one, two = rates([OURS], files, 16, 3)
    assert (one.threads, two.threads, one.ratio) == (1, 2, 1)
    assert len(two.images_per_s) == 3
