import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import naive_server
from benchmarks.harness.answers import Questions, WrongAnswer
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.command import BenchmarkError
from benchmarks.harness.pictures import pictures
from benchmarks.harness.servers import naive, ours
from benchmarks.serving.call_time_breakdown import runs
from benchmarks.serving.photos import CELLS
from convserve_imaging import photos
from convserve_protos.classifier_pb2 import Timings
from tests.benchmarks.tables import figures_of, tables_of
from tests.bundles import write_bundle, write_photo_bundle
from tests.jpegs import jpeg_of

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.serving.photos")
OURS = ("convserve, grpcio", "convserve, native")
NAMES = ("naive", "naive, all cores a call", "naive, our decoder", *OURS)
WAIT_S = 250.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder, "a-model-of-digits")
    write_photo_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(models: Path) -> Bundle:
    return Bundle(models / "colours/1/model.onnx")


def test_command_prints_rows_and_call_times(models: Path, tmp_path: Path) -> None:
    (tmp_path / "red.jpg").write_bytes(jpeg_of("red"))
    file = tmp_path / "figures.json"
    options = ["--models", str(models), "--photos", str(tmp_path), "--rounds", "1"]
    options += ["--seconds", "1", "--driver", "own", "--json", str(file)]
    done = subprocess.run(
        [*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    assert "colours/1; 1 photographs" in done.stdout.splitlines()[0]
    rows, times = tables_of(done.stdout)
    assert [row[:3] for row in rows] == [
        [str(cell.callers), "1", name] for cell in CELLS for name in NAMES
    ]
    assert min(figures_of(text for row in rows for text in row[3:])) > 0
    assert [row[:2] for row in times] == [
        [str(cell.callers), name] for cell in CELLS for name in OURS
    ]
    content = json.loads(file.read_text())
    for one in content["call_times"]:
        parts = [one[f"{part}_ms"] for part in ("queue", "decode", "engine", "rest")]
        assert sum(parts) == pytest.approx(one["latency_ms"])
        assert min(parts) >= 0
        assert one["decode_ms"] > 0
        assert 1 <= one["images_a_run"] <= one["cell"]["callers"]


@pytest.mark.parametrize("kind", ["naive", "ours"])
def test_pixels_of_another_decoder_are_noticed(bundle: Bundle, kind: str) -> None:
    files = pictures(None, 2).files
    naively = Questions.of_files(bundle, files, naive_server.decode)
    asked = Questions.of_files(bundle, files, photos.decode)
    right, wrong = (naively, asked) if kind == "naive" else (asked, naively)
    with naive(bundle.file) if kind == "naive" else ours(bundle.file)[1] as server:
        right.check(server.address)
        with pytest.raises(WrongAnswer, match="probabilities differ"):
            wrong.check(server.address)


def test_model_of_photographs_is_found(models: Path, tmp_path: Path) -> None:
    write_photo_bundle(tmp_path, version=2)
    write_photo_bundle(tmp_path, version=10)
    assert Bundle.newest_of_photos(models, None).model == "colours"
    assert Bundle.newest_of_photos(tmp_path, "colours").version == 10


def test_missing_model_of_photographs_says_what_to_run(models: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with pytest.raises(
        BenchmarkError, match="a model of photographs, got none; run convserve-train fit"
    ):
        Bundle.newest_of_photos(tmp_path, None)
    with pytest.raises(
        BenchmarkError, match="mnist: expected a model of photographs, got another one"
    ):
        Bundle.newest_of_photos(tmp_path, "mnist")
    options = ["--models", str(tmp_path / "absent")]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "run convserve-train fit photos or make demo first" in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_are_distinguished_by_their_time() -> None:
    replies = [
        # A run of three, its replies mixed with those of another worker's run of two.
        (0.0100, Timings(compute_us=5000)),
        (0.0101, Timings(compute_us=5001)),
        (0.0102, Timings(compute_us=5000)),
        (0.0103, Timings(compute_us=5001)),
        (0.0104, Timings(compute_us=5000)),
        # As long as the first, and after it.
        (0.0155, Timings(compute_us=5000)),
    ]
    assert runs(replies) == 3
    assert runs([]) == 0
