"""A test that waits for ever ends, and what comes after it is run."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recorder import Recorder

ROOT = Path(__file__).parents[1]
LIMITS = ["-o", "timeout=5", "-o", "faulthandler_timeout=60"]
CHILD = '[sys.executable, "-c", "import time; time.sleep(3600)"]'

WAITS_FOR_A_CHILD = f"""
import subprocess, sys

def test_waits():
    with subprocess.Popen({CHILD}) as child:
        print("child", child.pid)
        child.wait()

def test_next():
    pass
"""

WAITS_IN_NATIVE_CODE = """
import ctypes

def test_waits():
    ctypes.PyDLL(None).sleep(3600)  # Holds the interpreter, so that no handler of it runs.
"""

INTERRUPTS = """
import signal, subprocess, sys

def test_children_hear_ctrl_c():
    code = "import time; print('up', flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
    assert child.returncode == -signal.SIGINT
"""


def run(folder: Path, code: str, *options: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", *LIMITS, *options]
    return subprocess.run(
        [*command, str(folder / "test_it.py")], cwd=ROOT, capture_output=True, text=True
    )


def test_child_that_is_waited_for_is_killed_and_the_next_test_is_run(tmp_path: Path) -> None:
    done = run(tmp_path, WAITS_FOR_A_CHILD)
    assert done.returncode == 1
    assert "Timeout (>5.0s)" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    (pid,) = (line.split()[1] for line in done.stdout.splitlines() if line.startswith("child "))
    assert not Path(f"/proc/{pid}").exists()


def test_native_code_that_never_comes_back_is_ended_with_its_stack(tmp_path: Path) -> None:
    done = run(tmp_path, WAITS_IN_NATIVE_CODE, "-o", "faulthandler_timeout=2", "-o", "timeout=0")
    assert done.returncode == 1
    assert "in test_waits" in done.stderr


def test_ctrl_c_reaches_children_of_tests_in_the_background_of_a_script(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = run(tmp_path, INTERRUPTS, "-o", "timeout=60")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == 0, done.stdout


def test_recorder_keeps_the_first_and_counts_all() -> None:
    seen = Recorder[int](most=3)
    for number in range(3):
        seen.append(number)
    assert seen == [0, 1, 2]
    assert (seen[0], seen[-1], list(seen)) == (0, 2, [0, 1, 2])
    seen.append(3)
    assert len(seen) == 4
    with pytest.raises(AssertionError, match="4 came, the first 3 are kept"):
        list(seen)
    seen.clear()
    assert seen == []
