"""Real workers of one study: one that is killed in the middle of a trial, several at once."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from convserve_trainer.recipes import recipe_files
from convserve_trainer.sweep import database, shared
from tests.program import Program
from tests.trainer.conftest import Small
from tests.trainer.sweep import postgresql

pytestmark = pytest.mark.timeout(900)
WAIT_S = 600
GRACE_S = 8
PASSWORDS = (postgresql.PASSWORD, postgresql.QUOTED)

#: A worker that waits in the first epoch of its second trial, until it reads a line.
WAITING = """
import sys
from convserve_trainer.main import main
from convserve_trainer.sweep import study

trained, seen = study.trained, []

def slow(recipe, data, after):
    seen.append(recipe)
    if len(seen) == 2:
        print("in the middle", flush=True)
        sys.stdin.readline()
    return trained(recipe, data, after)

study.trained = slow
sys.exit(main())
"""
PLAIN = "import sys\nfrom convserve_trainer.main import main\nsys.exit(main())"


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    found = postgresql.programs()
    if not found:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    with postgresql.running(found) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.sweeps)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'trials.db'}"
    server: postgresql.Server = request.getfixturevalue("server")
    return server.create(re.sub(r"\W", "_", request.node.name).lower())


class Workers:
    """Processes that sweep one study.

    Args:
        url: of the database.
        small: what they train.
        folder: for the space and the best recipes.
        trials: of the study.
        grace_s: without a heartbeat, after which a trial is lost.
    """

    def __init__(
        self, url: str, small: Small, folder: Path, trials: int, grace_s: int = GRACE_S
    ) -> None:
        self.url = url
        self._folder = folder
        self._started = 0
        (folder / "space.toml").write_text("learning_rate = { low = 1e-3, high = 1e-2 }")
        self._command = ["sweep", "digits", "--data", str(small.data), "--trials", f"{trials}"]
        self._command += ["--recipe", str(small.recipe), "--space", str(folder / "space.toml")]
        self._command += ["--study", "two", "--grace", f"{grace_s}", "--best"]

    def start(self, script: str = PLAIN) -> Program[str]:
        """Starts one; its best recipe is in the file best()."""
        self._started += 1
        return Program(
            [sys.executable, "-c", script, *self._command, str(self.best(self._started))],
            env=os.environ | {"CONVSERVE_SWEEP_STORAGE": self.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def best(self, number: int) -> Path:
        return self._folder / f"best-{number}.toml"

    def trials(self) -> list[FrozenTrial]:
        storage = database.opened(database.parse(self.url), GRACE_S, shared.stale, print)
        try:
            return optuna.load_study(study_name="two", storage=storage).get_trials()
        finally:
            storage.close()


def _wait_for(worker: Program[str], text: str) -> str:
    """Returns what a worker printed until a line has a text."""
    assert worker.stdout
    printed = ""
    for line in worker.stdout:
        printed += line
        if text in line:
            return printed
    raise AssertionError(f"{text!r} is not in {printed}")


def _ends_of(trials: list[FrozenTrial]) -> list[TrialState]:
    """Returns how each trial ended, of those that were tried again the last attempt."""
    again = {trial.user_attrs.get(shared.AGAIN) for trial in trials}
    return [
        trial.state
        for trial in trials
        if trial.number not in again and shared.NOT_LOST not in trial.user_attrs
    ]


def test_killed_worker_loses_no_trial(url: str, small: Small, tmp_path: Path) -> None:
    workers = Workers(url, small, tmp_path, trials=8)
    with workers.start(WAITING) as killed, workers.start() as other:
        _wait_for(killed, "in the middle")
        if Path("/proc").exists():
            shown = Path(f"/proc/{killed.pid}/cmdline").read_text()
            assert not any(password in shown for password in PASSWORDS)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(WAIT_S) == -signal.SIGKILL
        printed, _ = other.communicate(timeout=WAIT_S)
    assert other.returncode == 0, printed
    assert not any(password in printed for password in PASSWORDS)
    trials = workers.trials()
    assert TrialState.FAIL in {trial.state for trial in trials}
    assert _ends_of(trials) == [TrialState.COMPLETE] * 8
    by_number = {trial.number: trial for trial in trials}
    for trial in trials:
        if (before := trial.user_attrs.get(shared.AGAIN)) is not None:
            assert trial.params == by_number[before].params
    best = recipe_files.read(workers.best(2))
    assert best.learning_rate in {trial.params["learning_rate"] for trial in trials}


@pytest.mark.sweeps
def test_workers_that_start_at_once_share_the_trials_of_a_new_database(
    server: postgresql.Server, small: Small, tmp_path: Path
) -> None:
    workers = Workers(server.create("at_once"), small, tmp_path, trials=9)
    with ExitStack() as stack:
        started = [stack.enter_context(workers.start()) for _ in range(4)]
        printed = [worker.communicate(timeout=WAIT_S)[0] for worker in started]
    assert [worker.returncode for worker in started] == [0] * 4, printed
    assert _ends_of(workers.trials()) == [TrialState.COMPLETE] * 9
    best = {workers.best(number).read_text() for number in range(1, 5)}
    assert len(best) == 1, "all write the same recipe"


@pytest.mark.sweeps
def test_tables_may_be_made_by_several_at_once(server: postgresql.Server) -> None:
    address = database.parse(server.create("tables"))
    together = threading.Barrier(8)

    def make() -> int:
        together.wait()
        storage = database.opened(address, GRACE_S, shared.stale, print)
        try:
            return len(storage.get_all_studies())
        finally:
            storage.close()

    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(make) for _ in range(8)]
        assert [each.result() for each in made] == [0] * 8


@pytest.mark.sweeps
def test_connections_that_a_restarted_database_has_ended_are_made_anew(
    server: postgresql.Server, small: Small, tmp_path: Path
) -> None:
    # No heartbeat meanwhile: the end of the trial is the first that needs a connection.
    workers = Workers(server.create("ended"), small, tmp_path, trials=2, grace_s=4000)
    with workers.start(WAITING) as worker:
        _wait_for(worker, "in the middle")
        server.control("restart")
        printed, _ = worker.communicate("go on\n", timeout=WAIT_S)
    assert worker.returncode == 0, printed
    assert [trial.state for trial in workers.trials()] == [TrialState.COMPLETE] * 2


@pytest.mark.sweeps
def test_database_that_is_away_within_a_trial_costs_no_trial(
    server: postgresql.Server, small: Small, tmp_path: Path
) -> None:
    workers = Workers(server.create("away"), small, tmp_path, trials=3)
    with workers.start(WAITING) as worker:
        _wait_for(worker, "in the middle")
        server.control("stop")
        _wait_for(worker, "no heartbeat: postgresql+psycopg://trainer:***@127.0.0.1:")
        server.control("start")
        printed, _ = worker.communicate("go on\n", timeout=WAIT_S)
    assert worker.returncode == 0, printed
    assert [trial.state for trial in workers.trials()] == [TrialState.COMPLETE] * 3


@pytest.mark.sweeps
def test_wrong_password_is_one_line_without_it(
    server: postgresql.Server, small: Small, tmp_path: Path
) -> None:
    url = server.url("postgres").replace(postgresql.QUOTED, "hidden")
    with Workers(url, small, tmp_path, trials=1).start() as worker:
        printed, _ = worker.communicate(timeout=WAIT_S)
    assert worker.returncode == 1
    assert "password authentication failed" in printed
    assert "hidden" not in printed
    assert "Traceback" not in printed
