import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import json_format

from benchmarks.training.precision import changes
from tests.benchmarks.tables import tables_of
from tests.bundles import COLOURS, SHAPE, digit_of, model, photo_manifest, photo_model
from tests.trainer.drawn import draw_parts

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.training.precision")


def test_float32_is_itself_and_the_others_differ_a_little() -> None:
    classes = [number % 10 for number in range(40)]
    labels = np.array(classes, np.int64)
    pixels = np.stack([digit_of(class_) for class_ in classes])
    pixels = np.where(pixels > 0, pixels, np.full((1, *SHAPE), 251, np.uint8))
    single, half, tensor_float, imitated = changes(model({}), pixels, labels, 7, 2)
    assert (single.largest_difference, single.other_labels, single.ratio) == (0, 0, 1)
    assert single.right == 40
    assert half.file_bytes < single.file_bytes
    assert [len(change.cpu_us) for change in (single, half, tensor_float)] == [2, 2, 0]
    assert min(half.cpu_us) > 0
    for change in (tensor_float, imitated):
        assert 0 < change.largest_difference < 1e-2
        assert (change.other_labels, change.right) == (0, 40)


def test_command_prints_a_row_for_each_net(tmp_path: Path) -> None:
    parts = dict.fromkeys(COLOURS, 5)
    pictures = draw_parts(tmp_path / "drawn", parts, parts)
    manifest = photo_manifest()
    manifest.labels[:] = sorted(COLOURS)  # as the folders are; green alone stays where it was
    net = tmp_path / "model.onnx"
    onnx.save(photo_model({"convserve.manifest": json_format.MessageToJson(manifest)}), net)
    file = tmp_path / "figures.json"
    options = [str(net), "--data", str(pictures), "--rounds", "2"]
    command = [*COMMAND, *options, "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "colours, 15 held-out pictures in batches of 16" in done.stdout.splitlines()[0]
    [rows] = tables_of(done.stdout)
    assert [row[0] for row in rows] == [
        *("float32", "float16", "tf32, imitated", "float16, imitated")
    ]
    assert [row[4] for row in rows] == ["5"] * 4
    assert [len(one["cpu_us"]) for one in json.loads(file.read_text())["changes"]] == [2, 2, 0, 0]


def test_command_without_a_bundle_says_so(tmp_path: Path) -> None:
    command = [*COMMAND, str(tmp_path / "absent")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    error = f"{tmp_path / 'absent'}: no such file or folder"
    assert done.stderr == f"python -m benchmarks.training.precision: {error}\n"
