"""The trainer as a container's job: whole processes, on pictures drawn here."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from convserve_bundle.folder import find_bundle
from tests.program import Program
from tests.trainer.drawn import draw_parts

pytestmark = pytest.mark.timeout(1000)
WAIT_S = 300
TINY = ["--recipe", "quick", "--size", "22x24", "--batch-size", "8", "--steps", "4"]
#: Runs the job as a container's user has it: a home that is not there.
BARE = {"HOME": "/nonexistent", "PATH": os.environ.get("PATH", "")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_parts(tmp_path / "red_blue", {"red": 12, "blue": 12}, {"red": 9, "blue": 9})


def _command(folder: Path, *more: str, module: str = "convserve_trainer.job") -> list[str]:
    command = [sys.executable, "-m", module, "fit", "photos", *TINY, "--data", str(folder)]
    return [*command, "--models", str(folder.parent / "models"), *more]


def _run(
    command: list[str], environment: Mapping[str, str] = BARE
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT_S, env=dict(environment)
    )


def test_job_without_a_home_trains_in_silence_and_then_does_nothing(folder: Path) -> None:
    command = _command(folder, "--epochs", "1", "--unless-published")
    temporary = folder.parent / "tmp"
    temporary.mkdir()
    environment = {**BARE, "TMPDIR": str(temporary)}
    first = _run(command, environment)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    published = folder.parent / "models/red-blue/1/model.onnx"
    assert f"published {published} (" in first.stdout

    again = _run(command, environment)
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1].startswith(f"{published} is published already, from ")
    assert again.stderr == ""
    assert os.listdir(folder.parent / "models/red-blue") == ["1"]
    # What our process kept for itself is gone; TensorFlow leaves compiled Python behind.
    assert [name for name in os.listdir(temporary) if name != "__pycache__"] == []


@pytest.mark.parametrize("module", ["convserve_trainer.job", "convserve_trainer.main"])
def test_sigterm_keeps_finished_epochs_and_resume_publishes_them(folder: Path, module: str) -> None:
    command = _command(folder, "--epochs", "100000", module=module)
    with Program[str](
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith("2/100000 "):
                break
        process.terminate()
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 143
    stopped = re.fullmatch(
        r"convserve-train: stopped; (\d+) of 100,000 epochs(?: and \d+ steps? of the next)? are "
        r"finished and kept in \S+\n"
        r"go on with .* --resume, or publish what there is with --resume --epochs \1\n",
        errors,
    )
    assert stopped is not None, errors
    done = _run(_command(folder, "--resume", "--epochs", stopped[1]))
    assert done.returncode == 0, done.stderr
    assert f"resumed after epoch {stopped[1]}\n" in done.stdout
    assert find_bundle(folder.parent / "models/red-blue").is_file()


#: Comes to a stop in the middle of a step, once it was asked to stop: the batch never ends.
HANGING = """
import sys
from convserve_trainer.main import main
from convserve_trainer.fitting.progress import Progress

def step(self, done, figures):
    print("in a step", flush=True)
    while True:
        sys.stdin.readline()

Progress.step = step
sys.exit(main())
"""


def test_second_sigterm_ends_a_training_that_does_not_stop(folder: Path) -> None:
    command = _command(folder, "--epochs", "1")
    command[1:3] = ["-c", HANGING]
    with Program[str](command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "in a step" not in process.stdout.readline():
            assert process.poll() is None
        # Two that are sent one after the other are one; the second waits for the first's effect.
        process.terminate()
        _wait_until_handled(process.pid)
        process.terminate()
        assert process.wait(WAIT_S) == -signal.SIGTERM


def _wait_until_handled(pid: int) -> None:
    """Waits until the process has left SIGTERM to the system, the sign that it took the first."""
    while _catches(pid):
        os.sched_yield()


def _catches(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [caught] = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")]
    return bool(caught >> (signal.SIGTERM - 1) & 1)
