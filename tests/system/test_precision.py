"""Nets in every precision, from the trainer's command through one server to a client."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from convserve import Client
from convserve.main import main
from convserve_trainer.bundles import bundle
from tests.bundles import model
from tests.system.conftest import WAIT_S, StartServer
from tests.trainer.drawn import draw_parts

pytestmark = pytest.mark.timeout(1000)
TINY = ["--recipe", "quick", "--size", "22x24", "--batch-size", "8", "--steps", "4"]
NAMES = {
    "float32": "red-blue",
    "tf32": "red-blue-tf32",
    "float16": "red-blue-half",
    "int8": "red-blue-int8",
    "bfloat16": "red-blue-brief",
}


#: Runs the trainer's command for each name and precision, in one process: most of its time is the
#: start of TensorFlow.
FIT = """
import sys
from convserve_trainer.main import main
command = ["fit", "photos", *sys.argv[1].split(), "--epochs", "2"]
for each in sys.argv[2:]:
    name, precision = each.split(":")
    if status := main([*command, "--name", name, "--precision", precision]):
        sys.exit(status)
"""


def _publish(folder: Path, models: Path) -> None:
    options = " ".join([*TINY, "--data", str(folder), "--models", str(models)])
    nets = [f"{name}:{precision}" for precision, name in NAMES.items()]
    command = [sys.executable, "-c", FIT, options, *nets]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S * 5)
    assert done.returncode == 0, done.stderr


def test_every_precision_is_published_served_and_answers_alike(
    tmp_path: Path,
    models: Path,
    start_server: StartServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = {"red": 12, "blue": 12}
    folder = draw_parts(tmp_path / "red_blue", parts, parts)
    _publish(folder, models)
    # One more, of a later trainer: it is refused, and the digits of before are served.
    (models / "mnist" / "2").mkdir()
    onnx.save(
        model({"convserve.manifest": '{"format": 1, "precision": "PRECISION_INT4"}'}),
        models / "mnist" / "2" / "model.onnx",
    )

    server = start_server("--device", "cpu", "--workers", "2", "--engine", "onnxruntime")
    address = server.wait_until_serving()
    files = [path.read_bytes() for path in sorted(folder.glob("*/*/*.jpg"))]
    answers = {}
    for precision, name in NAMES.items():
        with Client(address, model=name) as client:
            answers[precision] = client.classify_images(files)
            shown = {one.name: one for one in client.models()}
        assert shown[name].precision == precision
        assert shown[name].manifest == bundle.read_manifest(models / name)
    assert (shown["mnist"].version, shown["mnist"].precision) == (1, "float32")

    exact = answers["float32"].probabilities
    for of_devices in ("tf32", "bfloat16"):
        np.testing.assert_array_equal(answers[of_devices].probabilities, exact)
    difference = np.abs(answers["float16"].probabilities - exact)
    assert 0 < difference.max() <= 1e-2
    assert 0 < np.abs(answers["int8"].probabilities - exact).mean() <= 2e-2
    clear = np.abs(exact[:, 0] - exact[:, 1]) > 2e-2
    assert clear.any()
    labels = [answers[precision].indices[clear] for precision in ("float32", "float16")]
    np.testing.assert_array_equal(*labels)

    assert main(["models", "--server", address]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert [rows[name][-2:] for name in NAMES.values()] == [
        [precision, "CPU"] for precision in NAMES
    ]
    assert server.terminate() == 0
    [reason] = [entry["message"] for entry in server.log if "of bfloat16" in entry["message"]]
    assert reason.endswith("is of bfloat16 and computed in float32: engine is onnxruntime")
    refusals = [entry for entry in server.log if "not served" in entry["message"]]
    [message] = {entry["message"] for entry in refusals}
    assert message.startswith("mnist/2 is not served: manifest.precision: expected one of ")
    assert "exception" not in refusals[0]
