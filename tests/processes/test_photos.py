"""Photographs over several processes: each decodes its own, chance is that of one process."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from convserve_trainer.runs.history import Epoch, read_csv
from convserve_trainer.runs.run_folder import found
from convserve_trainer.runs.training_state import Position
from tests.processes.launched import FIT, Launched
from tests.trainer.drawn import draw_parts

pytestmark = pytest.mark.timeout(1500)

EPOCHS, STEPS = 2, 3  # 18 pictures to train on, the last batch smaller

#: All that could differ, and an optimizer that does not make much of tiny differences.
EVERYTHING = """
task = "photos"
net = [
  { layer = "conv", filters = 4, stride = 2, norm = "batch" },
  { layer = "residual", filters = 4 },
  { layer = "global_average" },
  { layer = "dropout", rate = 0.3 },
]
loss = "binary_crossentropy"
height = 22
width = 24
optimizer = "sgd"
learning_rate = 0.05
schedule = "cosine"
warmup_epochs = 1
label_smoothing = 0.1
class_weights = "balanced"
epochs = 2
batch_size = 8
validation_share = 0.25

[augmentation]
rotation = 10
flip = true
shift = 0.1
brightness = 0.1
erase = 0.2
"""

Fit = Callable[..., list[str]]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """The command that trains on photographs that are decoded as they are needed."""
    folder = tmp_path_factory.mktemp("photos")
    data = draw_parts(folder / "drawn", {"red": 12, "blue": 12}, {"red": 9, "blue": 9})
    (folder / "all.toml").write_text(EVERYTHING)

    def command(run: Path, *more: str) -> list[str]:
        what = ("photos", "--backend", "jax", "--data", str(data), "--cache", "none", "--seed", "3")
        how = ("--recipe", str(folder / "all.toml"), "--name", "mine", "--run", str(run))
        return [*FIT, *what, *how, "--models", str(folder / f"models-{run.name}"), *more]

    return command


def _history(run: Path) -> list[Epoch]:
    return read_csv((run / "history.csv").read_text())


def test_stopped_by_one_process_and_resumed_it_is_the_training_of_one(
    fit: Fit, compiled: Path, tmp_path: Path
) -> None:
    alone, run = tmp_path / "alone", tmp_path / "run"
    with Launched(1, fit(alone), compiled) as job:
        [(status, _, errors)] = job.ended()
    assert status == 0, errors

    with Launched(2, fit(run, "--checkpoint-seconds", "0"), compiled) as job:
        job.until("epoch 1/2  step 1/3 ")
        job.processes[1].send_signal(signal.SIGTERM)
        ended = job.ended()
    if [status for status, _, _ in ended] != [0, 0]:  # it was too late for that
        assert [status for status, _, _ in ended] == [143, 143], ended
        assert "convserve-train: stopped; " in ended[0][2]
        assert f"finished and kept in {run}\n" in ended[0][2]
        assert found(run)[0] >= Position(0, 1)
        with Launched(2, fit(run, "--resume-or-start"), compiled) as job:
            ended = job.ended()
        assert [status for status, _, _ in ended] == [0, 0], ended
    for here, there in zip(_history(run), _history(alone), strict=True):
        assert here.loss == pytest.approx(there.loss, abs=1e-5)
        assert here.val_loss == pytest.approx(there.val_loss, abs=1e-5)
        assert here.accuracy == pytest.approx(there.accuracy, abs=1e-6)
        assert here.val_accuracy == pytest.approx(there.val_accuracy, abs=1e-6)
        assert here.learning_rate == there.learning_rate
