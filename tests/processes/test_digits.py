"""MNIST over several processes: the weights are those of one, however often it is killed."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from convserve_trainer.bundles import bundle
from convserve_trainer.nets import keras_backend
from convserve_trainer.runs.history import Epoch, read_csv
from convserve_trainer.runs.run_folder import file_of, found
from convserve_trainer.runs.training_state import Position
from tests.processes.launched import FIT, Launched

pytestmark = pytest.mark.timeout(2000)

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CONVSERVE_TEST_DATA", ROOT.parent / "shared" / "data"))
EPOCHS, STEPS = 2, 20
# Largest difference from one process: of all weights, as a share of how far an epoch moves them;
# and of a loss. Rounding made 2e-5 of the weights on a CPU with AVX-512 and less on one without;
# a learning rate that is larger by a thousandth makes 0.06 in one epoch and 0.3 in two.
WEIGHTS, LOSS = 1e-3, 1e-5

Fit = Callable[..., list[str]]


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """The command that trains the lecture's net for EPOCHS of STEPS, kept in a run folder.

    By SGD with momentum: RMSprop, the lecture's, makes whole steps of rounding errors where
    gradients are nearly 0, and how those are rounded depends on the CPU.
    """
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"no MNIST in {DATA}; CONVSERVE_TEST_DATA names the folder above it")
    models = tmp_path_factory.mktemp("models")

    def command(run: Path, *more: str) -> list[str]:
        data = ("digits", "--backend", "jax", "--data", str(DATA / "mnist"), "--limit", "1200")
        # 1, 2 and 3 processes divide the batch.
        steps = ("--epochs", f"{EPOCHS}", "--batch-size", "60", "--seed", "7")
        optimizer = ("--set", 'optimizer="sgd"', "--set", "learning_rate=0.05")
        kept = ("--run", str(run), "--models", str(models / run.name))
        return [*FIT, *data, *steps, *optimizer, *kept, *more]

    return command


@pytest.fixture(scope="module")
def alone(fit: Fit, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    with Launched(1, fit(run), compiled) as job:
        [(status, _, errors)] = job.ended()
    assert status == 0, errors
    return run


def _weights(run: Path, epoch: int) -> list[npt.NDArray[np.float32]]:
    # Of the other backend: the optimizer's settings are not for this one.
    path = file_of(run, Position(epoch))
    weights: list[npt.NDArray[np.float32]] = (
        keras_backend.load().saving.load_model(path, compile=False).get_weights()
    )
    return weights


def _apart(some: list[npt.NDArray[np.float32]], others: list[npt.NDArray[np.float32]]) -> float:
    """The length of the difference of all weights."""
    squares = [np.square(a - b).sum() for a, b in zip(some, others, strict=True)]
    return float(np.sqrt(np.sum(squares)))


def _history(run: Path) -> list[Epoch]:
    return read_csv((run / "history.csv").read_text())


def _assert_same(run: Path, alone: Path, *epochs: int) -> None:
    moved = _apart(_weights(alone, 2), _weights(alone, 1))
    for epoch in epochs:
        parted = _apart(_weights(run, epoch), _weights(alone, epoch))
        assert parted <= WEIGHTS * moved
    for here, there in zip(_history(run), _history(alone), strict=True):
        assert here.loss == pytest.approx(there.loss, abs=LOSS)
        assert here.accuracy == pytest.approx(there.accuracy, abs=1e-3)


def test_two_processes_train_what_one_does_and_publish_it(
    fit: Fit, alone: Path, compiled: Path, tmp_path: Path
) -> None:
    run = tmp_path / "two"
    with Launched(2, fit(run, "--resume-or-start"), compiled) as job:
        ended = job.ended()
    assert [status for status, _, _ in ended] == [0, 0], ended
    [(_, first, _), (_, second, _)] = ended
    assert "\nprocesses       2, which share each batch of 60; this is process 0, which " in first
    assert "\npublished " in first
    assert second.endswith("process 1 of 2: process 0 has published\n")
    assert "epoch" not in second, "progress is that of process 0"
    _assert_same(run, alone, 1, 2)  # epoch 1 is 20 steps
    training = bundle.read_manifest(_published(fit, run)).training
    assert training.backend == "jax"
    assert 0 < training.parity_max_abs <= 1e-5
    with Launched(2, fit(run, "--unless-published", "--resume-or-start"), compiled) as again:
        ended = again.ended()
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert "is published already" in ended[0][1]


def _published(fit: Fit, run: Path) -> Path:
    command = fit(run)
    return Path(command[command.index("--models") + 1], "mnist")


def test_training_whose_process_was_killed_goes_on_in_any_number(
    fit: Fit, alone: Path, compiled: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    with Launched(2, fit(killed, "--checkpoint-seconds", "0"), compiled) as job:
        job.until(f"epoch 2/{EPOCHS}  step 5/{STEPS} ")
        job.processes[1].kill()
        [(status, _, errors), (other, _, _)] = job.ended()
    assert other == -signal.SIGKILL
    assert status in (1, -signal.SIGABRT)
    if status == 1:
        assert "process 0 of 2: the others cannot be reached any more (" in errors
    newest = found(killed)[0]
    assert Position(1, 5) <= newest < Position(2)
    for count in (1, 2, 3):
        run = tmp_path / f"resumed-{count}"
        shutil.copytree(killed, run)
        with Launched(count, fit(run, "--resume-or-start"), compiled) as job:
            ended = job.ended()
        assert [status for status, _, _ in ended] == [0] * count, ended
        assert f"\nresumed after {newest}\n" in ended[0][1]
        _assert_same(run, alone, 2)
        assert bundle.read_manifest(_published(fit, run)).training.parity_max_abs <= 1e-5
