"""SIGKILL on a real process, at a step that it says it is at, and what comes of its training."""

import csv
import json
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

from convserve_protos.bundle_pb2 import InputSpec, Manifest
from convserve_trainer.bundles import bundle
from convserve_trainer.runs import checkpoint
from convserve_trainer.runs.run_folder import file_of, found
from convserve_trainer.runs.training_state import Position
from tests.program import Program
from tests.trainer.conftest import Small
from tests.trainer.drawn import draw_parts
from tests.trainer.runs.test_run_log import events
from tests.trainer.teaching import teacher

pytestmark = pytest.mark.timeout(1000)
WAIT_S = 300
EPOCHS, STEPS = 3, 6
TIMES = ("seconds", "input_share")

#: A training that does not end: at its last step it waits until it is killed.
ENDLESS = f"""
import signal, sys
from convserve_trainer.fitting.progress import Progress
from convserve_trainer.main import main

report = Progress.step

def step(self, done, logs):
    report(self, done, logs)
    if (self._epoch + 1, done) == ({EPOCHS}, {STEPS}):
        signal.pause()

Progress.step = step
sys.exit(main())
"""
#: Several trainings, one after the other: TensorFlow takes seconds to start.
SEVERAL = """
import json, sys
from convserve_trainer.main import main

for command in json.loads(sys.argv[1]):
    if main(command):
        sys.exit(1)
    print("end of a training")
"""


EVERYTHING = """
task = "photos"
net = [
  { layer = "conv", filters = 6, stride = 2, norm = "batch" },
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
epochs = 3
batch_size = 7
validation_share = 0.2

[augmentation]
rotation = 10
flip = true
brightness = 0.1
erase = 0.2
elastic = 0.03
levels = 0.3
mixup = 0.4
cutmix = 1.0

[distillation]
teachers = ["TEACHER"]
temperature = 2
"""


@pytest.fixture(params=["digits", "everything"])
def task(request: pytest.FixtureRequest, tmp_path: Path, small: Small) -> list[str]:
    """Arguments of a training of EPOCHS epochs of STEPS steps; models and run are left out."""
    settings = ["--epochs", f"{EPOCHS}", "--seed", "3"]
    if request.param == "digits":  # in memory, steps in chunks, the last batch a smaller one
        command = ["fit", "digits", "--data", str(small.data), "--recipe", str(small.recipe)]
        return [*command, *settings]
    folder = draw_parts(tmp_path / "drawn", {"red": 12, "blue": 12}, {"red": 9, "blue": 9})
    taught = teacher(tmp_path, InputSpec(height=22, width=24, channels=3), classes=2)
    (tmp_path / "all.toml").write_text(EVERYTHING.replace("TEACHER", str(taught)))
    command = ["fit", "photos", "--data", str(folder), "--recipe", str(tmp_path / "all.toml")]
    return [*command, *settings, "--steps", f"{STEPS}", "--cache", "none"]


def _trained(commands: list[list[str]]) -> list[str]:
    """Runs trainings to their ends, in a process that had none before; returns their outputs."""
    command = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    *outputs, _ = done.stdout.split("end of a training\n")
    return outputs


def _kill(command: list[str], line: str) -> None:
    """Runs a training until it says a line."""
    training = [sys.executable, "-c", ENDLESS, *command]
    with Program[str](training, stdout=subprocess.PIPE, text=True) as process:
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
    # Keras counts the layers and generators that it makes, also across models.
    names = [re.sub(r"_\d+(?=[/_])", "", state.path) for state in states]
    numbered = [f"{at} {name}" for at, name in enumerate(names)]
    return dict(zip(numbered, (state.numpy() for state in states), strict=True))


def test_killed_training_ends_as_one_that_was_not(task: list[str], tmp_path: Path) -> None:
    def command(run: Path) -> list[str]:
        models = tmp_path / f"models-of-{run.name}"
        return [*task, "--run", str(run), "--models", str(models), "--name", "mnist"]

    whole, killed, damaged = (tmp_path / name for name in ("whole", "killed", "damaged"))
    step = random.randint(1, STEPS - 1)
    at = f"epoch 2/{EPOCHS}  step {step}/{STEPS} "
    _kill([*command(killed), "--checkpoint-seconds", "0"], at)
    newest, before, *_ = found(killed)
    assert Position(1, step) <= newest < Position(EPOCHS)
    shutil.copytree(killed, damaged)
    path = file_of(damaged, newest)
    path.write_bytes(path.read_bytes()[:-100])

    resumed = [[*command(run), "--resume"] for run in (killed, damaged)]
    *outputs, _ = _trained([*resumed, command(whole)])
    states, rows = _states(whole), _rows(whole / "history.csv")
    assert len(rows) == EPOCHS
    for run, last, output in ((killed, newest, outputs[0]), (damaged, before, outputs[1])):
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
