"""A data set of its own, from four files to right answers: whole programs, run as a user does."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convserve import BadImage, Client
from tests.system.conftest import WAIT_S, StartServer
from tests.trainer.idx_files import labelled, write

pytestmark = pytest.mark.timeout(1000)
COLOURS = ("red", "green", "blue")
RECIPE = """
task = "digits"
net = [{ layer = "conv", filters = 6 }, { layer = "global_average" }]
learning_rate = 0.05
epochs = 4
batch_size = 16
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with a net that was trained on pictures of 12 x 16 in three colours."""
    (write(tmp_path / "colours") / "labels.txt").write_text("\n".join(COLOURS))
    (tmp_path / "small.toml").write_text(RECIPE)
    done = _run("convserve_trainer.main", "fit", "digits", *_data(tmp_path), *_recipe(tmp_path))
    assert "30 held out, 12 x 16 RGB, 3 classes; not MNIST's bytes" in done
    return tmp_path / "models"


def _data(folder: Path) -> list[str]:
    return ["--data", str(folder / "colours")]


def _recipe(folder: Path) -> list[str]:
    return ["--recipe", str(folder / "small.toml"), "--models", str(folder / "models")]


def _run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_net_of_an_idx_set_is_trained_evaluated_served_and_right(
    tmp_path: Path, models: Path, start_server: StartServer
) -> None:
    bundle = str(models / "colours")
    score = json.loads(
        _run("convserve_trainer.main", "evaluate", bundle, *_data(tmp_path), "--json")
    )
    assert (score["correct"], score["total"]) == (30, 30)

    images, labels = labelled((4, 4, 4), seed=9)
    right = [COLOURS[label] for label in labels]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    files = [str(tmp_path / f"{number:02}.png") for number in range(len(images))]
    address = start_server("--workers", "1").wait_until_serving()
    with Client(address) as client:
        [model] = client.models()
        assert (model.kind, model.input_shape, model.labels) == ("pixels", (12, 16, 3), COLOURS)
        of_pixels = client.classify(images)
        assert [answer.label for answer in of_pixels] == right
        of_files = client.classify_images([Path(file).read_bytes() for file in files])
        assert np.allclose(of_files.probabilities, of_pixels.probabilities, atol=1e-5)
        Image.new("RGB", (16, 16)).save(tmp_path / "square.png")
        square = (tmp_path / "square.png").read_bytes()
        with pytest.raises(BadImage, match="has 16 rows and 16 columns; expected"):
            client.classify_images(square)

    lines = _run("convserve.main", "classify", "--server", address, "--format", "jsonl", *files)
    assert [json.loads(line)["label"] for line in lines.splitlines()] == right
    found = _run(
        *("convserve.main", "evaluate", str(tmp_path / "colours")),
        *("--server", address, "--format", "jsonl"),
    )
    assert json.loads(found)["right"] == 30
