"""SIGKILL on a real process, at a step that it says it is at, and what comes of its training."""

import csv
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.bundles import bundle
from convserve_trainer.runs import checkpoint
from convserve_trainer.runs.run_folder import file_of, found
from convserve_trainer.runs.training_state import Position
from tests.program import Program
from tests.trainer.drawn import draw_parts
from tests.trainer.runs.test_run_log import events

pytestmark = pytest.mark.timeout(1000)
TRAIN = [sys.executable, "-m", "convserve_trainer.main"]
WAIT_S = 300
EPOCHS, STEPS = 4, 20
TIMES = ("seconds", "input_share")


EVERYTHING = """
task = "photos"
net = [
  { layer = "conv", filters = 6, stride = 2, norm = "batch" },
  { layer = "residual", filters = 6 },
  { layer = "residual", filters = 8, stride = 2 },
  { layer = "global_average" },
  { layer = "dropout", rate = 0.3 },
]
loss = "binary_crossentropy"
height = 22
width = 24
optimizer = "adamw"
weight_decay = 0.01
schedule = "cosine"
warmup_epochs = 1
label_smoothing = 0.1
class_weights = "balanced"
epochs = 4
batch_size = 7
validation_share = 0.2

[augmentation]
rotation = 10
flip = true
brightness = 0.1
erase = 0.2
"""


@pytest.fixture(params=["digits", "photos", "everything"])
def task(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Arguments of a training of four epochs of twenty steps."""
    task = request.param
    if task == "digits":
        folder = request.getfixturevalue("mnist_folder")
        more = ["--limit", str(64 * STEPS - 10)]  # the last batch is smaller than the others
    else:
        folder = draw_parts(tmp_path / "mnist", {"red": 12, "blue": 12}, {"red": 9, "blue": 9})
        more = ["--recipe", "quick", "--size", "22x24", "--batch-size", "7", "--cache", "none"]
        more += ["--steps", f"{STEPS}", "--min-accuracy", "0"]
    if task == "everything":
        task = "photos"
        (tmp_path / "all.toml").write_text(EVERYTHING)
        more = ["--recipe", str(tmp_path / "all.toml"), "--steps", f"{STEPS}"]
    command = ["fit", task, "--data", str(folder), "--epochs", f"{EPOCHS}", "--seed", "3"]
    return [*command, *more]


def _trained(command: list[str]) -> str:
    """Runs a training to its end, in a process of its own as the killed one; returns its output."""
    done = subprocess.run([*TRAIN, *command], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _kill(command: list[str], line: str) -> None:
    """Runs a training until it says a line."""
    with Program[str]([*TRAIN, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            if printed.startswith(line):
                process.kill()
        assert process.wait(WAIT_S) == -signal.SIGKILL, f"ended without {line}"


def _weights(models: Path) -> list[bytes]:
    graph = bundle.read(models / "mnist")[0].graph
    return [onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer]


def _manifest(models: Path) -> Manifest:
    manifest = bundle.read_manifest(models / "mnist")
    assert manifest.HasField("created")
    manifest.ClearField("created")
    return manifest


def _rows(table: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(table.read_text().splitlines()))
    return [{name: row[name] for name in row if name not in TIMES} for row in rows]


def _states(run: Path) -> dict[str, npt.NDArray[Any]]:
    """Returns weights, slots of the optimizer and states of generators at the end of a run."""
    end = checkpoint.load(run / f"checkpoints/epoch-{EPOCHS:04}.keras")
    states = [*end.model.variables, *end.model.optimizer.variables]
    # Keras counts the generators that it makes, also across models.
    names = [re.sub(r"seed_generator(_\d+)?/", "/", state.path) for state in states]
    numbered = [f"{at} {name}" for at, name in enumerate(names)]
    return dict(zip(numbered, (state.numpy() for state in states), strict=True))


def test_killed_training_ends_as_one_that_was_not(task: list[str], tmp_path: Path) -> None:
    def command(run: Path) -> list[str]:
        models = tmp_path / f"models-of-{run.name}"
        return [*task, "--run", str(run), "--models", str(models), "--name", "mnist"]

    whole, killed, damaged = (tmp_path / name for name in ("whole", "killed", "damaged"))
    _trained(command(whole))
    step = random.randint(1, STEPS - 1)
    at = f"epoch 3/{EPOCHS}  step {step}/{STEPS} "
    _kill([*command(killed), "--checkpoint-seconds", "0"], at)
    newest, before, *_ = found(killed)
    assert Position(2, step) <= newest < Position(EPOCHS)
    shutil.copytree(killed, damaged)
    path = file_of(damaged, newest)
    path.write_bytes(path.read_bytes()[:-100])

    states, rows = _states(whole), _rows(whole / "history.csv")
    assert len(rows) == EPOCHS
    for run, last in ((killed, newest), (damaged, before)):
        output = _trained([*command(run), "--resume"])
        assert f"\nresumed after {last}\n" in output
        assert ("is damaged" in output) == (run is damaged)
        ended = _states(run)
        assert ended.keys() == states.keys()
        for name, state in states.items():
            assert np.array_equal(ended[name], state), f"{name}, killed at step {step}"
        models, undisturbed = (tmp_path / f"models-of-{each.name}" for each in (run, whole))
        assert _weights(models) == _weights(undisturbed)
        assert _manifest(models) == _manifest(undisturbed)
        for table in (run / "history.csv", models / "mnist/1/history.csv"):
            assert _rows(table) == rows
        for part in (whole / "tensorboard").iterdir():
            assert events(run / "tensorboard" / part.name) == events(part) != []
