import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.answers import Questions, WrongAnswer, compare
from benchmarks.harness.bundles import Bundle
from benchmarks.harness.h2load import H2loadDriver
from benchmarks.harness.load import Driver, LoadError, OwnDriver, Task
from benchmarks.harness.processes import ServerFailed, ServerProcess, process_tree
from benchmarks.harness.table import CELLS
from benchmarks.serving.__main__ import servers
from convserve_protos.bundle_pb2 import (
    PRECISION_BFLOAT16,
    PRECISION_INT8,
    PRECISION_UNSPECIFIED,
    Precision,
)
from tests.benchmarks.tables import cells_of, figures_of
from tests.bundles import write_bundle
from tests.program import Program

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.serving")
NAMES = ("naive", "convserve, grpcio", "convserve, native")
WAIT_S = 250.0

needs_h2load = pytest.mark.skipif(not H2loadDriver.is_installed(), reason="h2load not installed")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


@pytest.mark.parametrize(
    ("driver", "seconds"), [("own", "0.5"), pytest.param("h2load", "0.5", marks=needs_h2load)]
)
def test_command_prints_a_row_for_each_server_and_cell(
    models: Path, tmp_path: Path, driver: str, seconds: str
) -> None:
    file = tmp_path / "figures.json"
    options = ["--models", str(models), "--rounds", "1", "--seconds", seconds]
    options += ["--driver", driver, "--json", str(file)]
    done = subprocess.run(
        [*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    heading, blank, _, _, *lines = done.stdout.splitlines()
    assert f"rounds x seconds: 1 x {seconds}" in heading
    assert blank == ""
    found = [cells_of(line) for line in lines]
    expected = [[str(cell.callers), str(cell.images), name] for cell in CELLS for name in NAMES]
    assert [row[:3] for row in found] == expected
    for row in found:
        figures = figures_of(row[3:])
        assert len(figures) == 9
        assert min(figures) > 0, row
    content = json.loads(file.read_text())
    assert len(content["rows"]) == len(content["measurements"]) == len(found)


def test_command_without_a_bundle_says_what_to_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--models", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "run make demo first" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_command_leaves_no_process(models: Path, number: signal.Signals) -> None:
    options = ["--models", str(models), "--seconds", "30", "--driver", "own"]
    with Program[str]([*COMMAND, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True) as it:
        assert it.stderr is not None
        # The line comes with all servers up, in the middle of the run.
        assert "warmed up" in it.stderr.readline()
        started = process_tree(it.pid).keys()
        assert len(started) >= 1 + len(NAMES)
        it.send_signal(number)
        _, error = it.communicate(timeout=WAIT_S)
        assert it.returncode == 130, error
    assert not [pid for pid in started if process_tree(pid)]


@pytest.mark.parametrize("driver", ["own", pytest.param("h2load", marks=needs_h2load)])
def test_refused_calls_are_no_load(models: Path, driver: str) -> None:
    questions = Questions.of_pixels(Bundle(models / "mnist/1/model.onnx"), 2)
    chosen: Driver = OwnDriver() if driver == "own" else H2loadDriver()
    with servers(models / "mnist/1/model.onnx")[1] as server:
        request = replace(questions, model="absent").request(0, 1).SerializeToString()
        task = Task(server.address, request, questions.least_reply_bytes(1), 4, 2, 0.1)
        with pytest.raises(LoadError, match="NOT_FOUND" if driver == "own" else "errors"):
            chosen.run(task)


def test_wrong_probabilities_are_noticed(models: Path) -> None:
    questions = Questions.of_pixels(Bundle(models / "mnist/1/model.onnx"), 8)
    with servers(models / "mnist/1/model.onnx")[0] as server:
        questions.check(server.address)
        with pytest.raises(WrongAnswer, match="probabilities differ"):
            replace(questions, rows=questions.rows + 2e-5).check(server.address)
        with pytest.raises(WrongAnswer, match="labels"):
            replace(questions, labels=("other",) * 10).check(server.address)


def test_lost_process_is_noticed(models: Path) -> None:
    with servers(models / "mnist/1/model.onnx")[1] as server:
        assert server.cpu_s() > 0
        worker = next(
            pid
            for pid in process_tree(os.getpid())
            if "convserve_server.process.worker" in Path(f"/proc/{pid}/cmdline").read_text()
        )
        handle = os.pidfd_open(worker)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            assert select.select([handle], [], [], WAIT_S)[0], "still there"
        finally:
            os.close(handle)
        with pytest.raises(ServerFailed, match=f"lost processes .*{worker}"):
            server.cpu_s()


def test_server_that_does_not_start_is_reported_with_its_output() -> None:
    broken = ServerProcess("broken", [sys.executable, "-c", "raise SystemExit('no such model')"])
    with pytest.raises(ServerFailed, match="status 1"), broken:
        pass
    assert "no such model" in broken.output()


@pytest.mark.parametrize(
    ("precision", "allowed", "refused"),
    [
        (PRECISION_UNSPECIFIED, 5e-6, 2e-5),
        (PRECISION_BFLOAT16, 0.05, 0.09),
        (PRECISION_INT8, 5e-4, 2e-3),
    ],
)
def test_answers_may_be_as_far_off_as_the_precision_allows(
    tmp_path: Path, precision: Precision.ValueType, allowed: float, refused: float
) -> None:
    questions = Questions.of_pixels(Bundle(write_bundle(tmp_path, precision=precision)), 2)
    compare(questions.rows + np.float32(allowed), questions.rows, questions.within)
    with pytest.raises(WrongAnswer, match="probabilities differ"):
        compare(questions.rows + np.float32(refused), questions.rows, questions.within)
