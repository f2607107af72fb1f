"""Jobs that ask a server which starts with them, or is killed meanwhile. Linux: reads /proc."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import write_photo_bundle
from tests.jpegs import RGB, folder, jpeg_of
from tests.program import Program
from tests.system.conftest import WAIT_S, StartServer

from .test_client_outage import kill, port

__all__ = ["port"]  # A fixture.

PROGRAM = [sys.executable, "-I", "-m", "convserve.main"]
FILES = 400
WAIT = ["--wait", f"{WAIT_S:g}"]


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder for each colour, with pictures of it; in one of them, one of another colour."""
    for colour in RGB:
        (tmp_path / "set" / colour).mkdir(parents=True)
    for number in range(FILES):
        colour = list(RGB)[number % 3]
        file = tmp_path / "set" / colour / f"{number:03}.jpg"
        file.write_bytes(jpeg_of(colour, (64, 48), seed=number))
    (tmp_path / "set" / "red" / "000.jpg").write_bytes(jpeg_of("blue"))
    return tmp_path / "set"


def run(*arguments: str) -> subprocess.Popen[str]:
    return Program[str](
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def score(job: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = job.communicate(timeout=WAIT_S)
    assert job.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_job_that_starts_before_its_server_and_its_model_gets_its_score(
    start_server: StartServer, models: Path, colours: Path, port: str
) -> None:
    job = run(
        *("evaluate", str(colours), "--server", f"127.0.0.1:{port}", "--model", "colours"),
        *("--format", "jsonl", *WAIT),
    )
    assert job.stderr is not None
    assert "Connection refused" in job.stderr.readline()
    start_server("--port", port, "--workers", "2").wait_until_serving()
    assert "model colours is not loaded; there is mnist/1" in job.stderr.readline()
    # Both workers load it, one after the other.
    write_photo_bundle(models)
    found = score(job)
    assert (found["right"], found["answered"], found["asked"]) == (FILES - 1, FILES, FILES)
    assert found["classes"][0]["taken_for"] == {"blue": 1}


def test_job_goes_on_after_its_server_was_killed_and_is_back(
    start_server: StartServer, models: Path, colours: Path, port: str
) -> None:
    write_photo_bundle(models)
    flags = ("--port", port, "--workers", "2")
    first = start_server(*flags)
    address = first.wait_until_serving()
    named = [str(colours)] * 25
    job = run(
        *("classify", *named, "--server", address, "--model", "colours", "--format", "jsonl"), *WAIT
    )
    assert job.stdout is not None
    assert job.stderr is not None
    rows = [json.loads(job.stdout.readline()) for _ in range(100)]
    kill(first)
    assert job.poll() is None
    start_server(*flags).wait_until_serving()
    # Not by communicate(), which passes over what readline() has read ahead.
    rows += [json.loads(line) for line in job.stdout]
    with job:
        assert job.wait(WAIT_S) == 0, job.stderr.read()
    files = [str(file) for colour in sorted(RGB) for file in sorted((colours / colour).iterdir())]
    assert [row["file"] for row in rows] == files * 25
    assert sum(row["label"] != Path(row["file"]).parent.name for row in rows) == 25


def test_held_out_digits_are_counted_as_the_model_answers_them(start_server: StartServer) -> None:
    address = start_server("--workers", "1").wait_until_serving()
    found = score(run("evaluate", str(folder("mnist")), "--server", address, "--format", "jsonl"))
    # The model looks at ten pixels of the first row, which are dark in every digit: always class 0.
    assert (found["asked"], found["right"]) == (10_000, 980)
