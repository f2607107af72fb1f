"""Standard streams that are closed or full when convserve-serve reads its arguments."""

import subprocess
import sys

import pytest

SERVE = [
    sys.executable,
    "-c",
    "import sys; from convserve_server.main import main; sys.exit(main())",
]


def run(redirection: str, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *SERVE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_full_output_is_one_line_and_exit_1(
    flag: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    printed = "convserve-serve: cannot write standard output: No space left on device\n"
    assert run(">/dev/full", flag) == (1, "", printed)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_refusal_that_nobody_can_read_keeps_its_status(redirection: str) -> None:
    assert run(redirection, "--models", "/not/there") == (2, "", "")


def test_refusal_is_printed_without_an_output() -> None:
    status, _, printed = run("<&- >&-", "--models", "/not/there")
    assert (
        status,
        "expected an existing folder, got /not/there;" in printed,
        len(printed.splitlines()),
    ) == (2, True, 1)
