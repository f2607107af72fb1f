"""Of several processes one fails: none of them waits for ever, and each one says why."""

import signal
from pathlib import Path

import pytest

from convserve_trainer.nets import process_group
from tests.processes.launched import FIT, Launched
from tests.trainer.idx_files import write

pytestmark = pytest.mark.timeout(1000)

RECIPE = """
task = "digits"
net = [{ layer = "conv", filters = 4, stride = 2 }, { layer = "flatten" }]
epochs = 2
batch_size = 16
"""

#: A training that waits for others no longer than a second.
IMPATIENT = (
    "-c",
    "import sys; from convserve_trainer.nets import process_group; process_group.CONNECT_S = 1; "
    "from convserve_trainer.main import main; sys.exit(main())",
    "fit",
)


@pytest.fixture
def fit(tmp_path: Path) -> list[str]:
    """Arguments of a small training."""
    data = write(tmp_path / "small", (32, 32, 32), (10, 10, 10), (12, 16))
    (tmp_path / "small.toml").write_text(RECIPE)
    what = ("digits", "--backend", "jax", "--data", str(data))
    how = ("--recipe", str(tmp_path / "small.toml"), "--models", str(tmp_path / "models"))
    return [*what, *how, "--run", str(tmp_path / "run")]


def test_others_settings_are_refused_by_all(fit: list[str], compiled: Path) -> None:
    with Launched(2, [*FIT, *fit], compiled, own={1: ("--set", "learning_rate=0.5")}) as job:
        [(first, _, errors), (second, _, other_errors)] = job.ended()
    expected = "convserve-train: process 1: expected the settings and data of process 0; "
    assert (first, second) == (2, 2)
    assert f"{expected}its output says in what they differ\n" in errors
    assert f"{expected}learning_rate was 0.001, is 0.5\n" in other_errors


def test_batch_that_cannot_be_divided_is_refused_by_all(fit: list[str], compiled: Path) -> None:
    with Launched(2, [*FIT, *fit, "--limit", "49"], compiled) as job:
        ended = job.ended()
    for status, _, errors in ended:
        assert status == 2
        assert "last batch of an epoch: expected a multiple of 2 pictures, the devices " in errors


def test_failure_after_the_training_ends_the_others(
    fit: list[str], compiled: Path, tmp_path: Path
) -> None:
    with Launched(2, [*FIT, *fit, "--min-accuracy", "1"], compiled) as job:
        [(first, output, errors), (second, _, other_errors)] = job.ended()
    assert first == 1
    assert "accuracy" in errors
    assert "--resume" in output, "what is trained is kept"
    assert second in (1, -signal.SIGABRT)
    if second == 1:
        assert "process 1 of 2: the others cannot be reached any more (" in other_errors
    assert not list((tmp_path / "models").rglob("*.onnx"))


def test_process_that_hangs_ends_the_others(fit: list[str], compiled: Path, tmp_path: Path) -> None:
    more = ("--epochs", "100000", "--checkpoint-seconds", "0")
    with Launched(2, [*FIT, *fit, *more], compiled) as job:
        job.until("epoch 1/100000  step 1/6 ")
        job.processes[1].send_signal(signal.SIGSTOP)
        _, errors = job.processes[0].communicate(timeout=8 * process_group.HEARTBEAT_S)
        assert job.processes[0].returncode == -signal.SIGABRT
    assert "stopped sending heartbeats" in errors


def test_processes_that_do_not_come_are_not_waited_for(fit: list[str], compiled: Path) -> None:
    with Launched(2, [*IMPATIENT, *fit], compiled) as job:
        job.processes[1].kill()
        [(status, output, _), _] = job.ended()
    assert status == -signal.SIGABRT
    assert output.startswith("process 0 of 2: waits for the others at 127.0.0.1:")
