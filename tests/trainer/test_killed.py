"""A training that is killed with SIGKILL, and goes on as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from convserve_trainer import bundle

from .drawn import draw_parts

WAIT_S = 300
EPOCHS, KILLED_IN = 4, 3
DIGITS = ["digits", "--limit", "640", "--seed", "2"]
PHOTOS = ["photos", "--recipe", "quick", "--size", "22x24", "--batch-size", "8", "--steps", "10"]
STEPS = 10  # of an epoch of either

#: Comes to a stop once it has done so many steps, and says so; epochs are counted by their starts.
STOPPING = """
import sys
from convserve_trainer.main import main
from convserve_trainer.progress import Progress

epoch, step = int(sys.argv.pop(1)), int(sys.argv.pop(1))
begin = Progress.start
begun = 0

def start(self, number):
    global begun
    begun = number + 1
    begin(self, number)

def done(self, steps, figures):
    if (begun, steps) == (epoch, step):
        print("stopped there", flush=True)
        while True:
            sys.stdin.readline()

Progress.start, Progress.step = start, done
sys.exit(main())
"""


def _weights(models: Path) -> dict[str, NDArray[np.generic]]:
    (model,) = [path.name for path in models.iterdir() if not path.name.startswith(".")]
    net, _ = bundle.read(bundle.find(models / model))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in net.graph.initializer}


def _history(models: Path) -> list[list[str]]:
    """The figures of each epoch but for those of time."""
    (table,) = models.glob("*/1/history.csv")
    rows = [line.split(",") for line in table.read_text().splitlines()]
    kept = [place for place, name in enumerate(rows[0]) if name not in ("seconds", "input_share")]
    return [[row[place] for place in kept] for row in rows]


@pytest.mark.parametrize("task", [DIGITS, PHOTOS], ids=["digits", "photos"])
def test_killed_and_resumed_training_ends_bit_for_bit_as_one_that_was_not(
    task: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = (
        request.getfixturevalue("mnist_folder")
        if task is DIGITS
        else draw_parts(tmp_path / "red_blue", {"red": 40, "blue": 40}, {"red": 9, "blue": 9})
    )
    fit = ["fit", *task, "--epochs", f"{EPOCHS}", "--data", str(data), "--models"]
    trainer = [sys.executable, "-m", "convserve_trainer.main", *fit]
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    step = random.Random(os.getpid()).randint(1, STEPS)
    stopping = [sys.executable, "-c", STOPPING, f"{KILLED_IN}", f"{step}", *fit, str(disturbed)]
    with subprocess.Popen(
        stopping, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "stopped there" not in process.stdout.readline():
            assert process.poll() is None
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(disturbed) == [".unfinished"]

    resume = [*trainer, str(disturbed), "--resume"]
    done = subprocess.run(resume, check=True, capture_output=True, text=True, timeout=WAIT_S)
    assert f"resumed after epoch {KILLED_IN - 1}\n" in done.stdout
    whole = [*trainer, str(undisturbed)]
    subprocess.run(whole, check=True, capture_output=True, timeout=WAIT_S)
    found, expected = _weights(disturbed), _weights(undisturbed)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=f"step {step}: {name}")
    assert _history(disturbed) == _history(undisturbed)
