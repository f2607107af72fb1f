"""Standard streams that are closed, full, or that nobody reads: real processes."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from convserve_trainer.host import streams
from tests.trainer.conftest import Small

WAIT_S = 400
TRAINER = [sys.executable, "-m", "convserve_trainer.main"]
FULL = "/dev/full"


def ended(
    arguments: Sequence[str], redirected: str = "", command: Sequence[str] = TRAINER
) -> subprocess.CompletedProcess[str]:
    """Runs a command with the shell's redirections; {pipe} is one that nobody reads."""
    unread, pipe = os.pipe()
    os.close(unread)
    shell = f'exec "$@" {redirected.format(pipe=pipe)}'
    try:
        return subprocess.run(
            ["bash", "-c", shell, "bash", *command, *arguments],
            capture_output=True, text=True, timeout=WAIT_S, check=False,
            pass_fds=[pipe],
        )  # fmt: skip
    finally:
        os.close(pipe)


@pytest.mark.parametrize(
    ("redirected", "status", "errors"),
    [
        (">&{pipe}", 141, ""),
        (">&-", 1, "convserve-train: standard output: closed\n"),
        (f">{FULL}", 1, "convserve-train: standard output: No space left on device\n"),
        ("</dev/null 1<&0", 1, "convserve-train: standard output: Bad file descriptor\n"),
        (f">{FULL} 2>&-", 1, ""),
        (">&{pipe} 2>&{pipe} <&-", 141, ""),
        (f"2>{FULL}", 0, ""),
        ("2>&- <&-", 0, ""),
    ],
)
def test_output_that_is_all_ends_with_a_line_or_none(
    redirected: str, status: int, errors: str
) -> None:
    done = ended(["recipes"], redirected)
    assert (done.returncode, done.stderr) == (status, errors)
    assert bool(done.stdout) == (status == 0)


def test_help_that_cannot_be_written_is_an_error() -> None:
    done = ended(["--help"], f">{FULL}")
    line = "convserve-train: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize("redirected", ["2>&-", f"2>{FULL}", "2>&{pipe}", ">&- 2>&-"])
def test_an_error_keeps_its_status_where_nobody_hears_of_it(redirected: str) -> None:
    done = ended(["inspect", "/nowhere"], redirected)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.fixture(scope="module")
def trained(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """A command that has trained, and what was seen of it: two lines, by a reader that left."""
    fit = small.fit(tmp_path_factory.mktemp("trained") / "models", "--epochs", "2")
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -2; exit "${PIPESTATUS[0]}"', "bash", *TRAINER, *fit],
        capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return fit, done.stdout


def _is_published(models: Path) -> bool:
    unfinished = models / ".unfinished"
    done = not unfinished.exists() or not any(unfinished.iterdir())
    return done and (models / "small/1/model.onnx").is_file()


def test_a_reader_that_leaves_in_the_middle_ends_no_training(
    trained: tuple[list[str], str],
) -> None:
    fit, output = trained
    assert output.count("\n") == 2
    assert _is_published(Path(fit[fit.index("--models") + 1]))


def test_a_training_outlives_streams_that_are_closed_or_full(small: Small, tmp_path: Path) -> None:
    done = ended(small.fit(tmp_path / "models", "--epochs", "2"), f">{FULL} 2>&- <&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert _is_published(tmp_path / "models")


@pytest.mark.parametrize(
    ("redirected", "errors"),
    [
        (">&{pipe} 2>&{pipe}", ""),
        (">&- 2>&- <&-", ""),
        (
            f">{FULL}",
            "convserve-train: standard output: No space left on device; going on without it\n",
        ),
    ],
)
def test_what_a_training_says_of_its_output(
    redirected: str, errors: str, trained: tuple[list[str], str]
) -> None:
    done = ended([*trained[0], "--unless-published"], redirected)
    assert (done.returncode, done.stderr) == (0, errors)


def test_no_file_gets_the_descriptor_of_a_closed_stream() -> None:
    code = (
        "from convserve_trainer.host import streams; streams.settle()\n"
        "with open('/dev/null') as file: raise SystemExit(file.fileno())"
    )
    done = ended([], "<&- >&- 2>&-", [sys.executable, "-c", code])
    assert done.returncode >= 3


def test_a_name_that_a_terminal_cannot_show_ends_nothing() -> None:
    code = (
        "from convserve_trainer.host import streams; streams.settle()\nprint('caf\\u00e9 \\u732b')"
    )
    done = ended([], "", ["env", "PYTHONIOENCODING=ascii:strict", sys.executable, "-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "caf\\xe9 \\u732b\n", "")


def test_a_pipe_that_is_set_not_to_wait_is_waited_for() -> None:
    code = (
        "import os; from convserve_trainer.host import streams; os.set_blocking(1, False)\n"
        "streams.settle(); print('x' * 1_000_000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        content, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, len(content)) == (0, 1_000_001)


@pytest.mark.parametrize(("terminal", "drawn"), [("xterm", True), ("dumb", False)])
def test_lines_are_drawn_anew_on_terminals_that_can(
    terminal: str, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    master, slave = pty.openpty()
    with open(master, "rb"), open(slave, "w") as stream:
        assert streams.is_screen(stream) is drawn
