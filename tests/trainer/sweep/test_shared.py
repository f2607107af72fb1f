"""A sweep in a database: what several workers have, keep, lose and refuse."""

import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError

from convserve_trainer.errors import UsageError
from convserve_trainer.host.signals import Stopped
from convserve_trainer.main import main
from convserve_trainer.recipes import recipe_files
from convserve_trainer.sweep import database, shared
from tests.trainer.sweep.conftest import Trainer

COMPLETE, FAIL = TrialState.COMPLETE, TrialState.FAIL
SPACE = "learning_rate = { low = 1e-3, high = 1e-2 }\nepochs = 1"


class Worker:
    """A worker of a study in SQLite; `dead` are others, whose processes are gone.

    Args:
        folder: for the database and the best recipe.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "trials.db"
        self.url = f"sqlite:///{self.file}"
        self.best = folder / "best.toml"
        self._space = folder / "space.toml"
        self._space.write_text(SPACE)

    def run(self, trials: int, *more: str) -> int:
        command = ["sweep", "digits", "--storage", self.url, "--study", "s1", "--space"]
        command += [str(self._space), "--best", str(self.best), "--trials", f"{trials}"]
        return main([*command, "--grace", "60", *more])

    def storage(self) -> database.Storage:
        return database.opened(database.parse(self.url), 60, shared.stale, print)

    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="s1", storage=self.storage())

    def trials(self) -> list[FrozenTrial]:
        return self.study().get_trials()

    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.trials()]

    def dead(self, heartbeat: bool = True) -> int:
        """Begins a trial, or the one that is queued, and dies; returns its number.

        Args:
            heartbeat: whether there was one, which is then an hour old.
        """
        storage = self.storage()
        study = optuna.load_study(study_name="s1", storage=storage)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = study.ask()
        trial.suggest_float("learning_rate", 1e-3, 1e-2)
        if heartbeat:
            storage.record_heartbeat(storage.trial_id(study, trial.number))
            trial.set_user_attr("worker", {"trial": trial.number})
            self.age()
        return trial.number

    def age(self) -> None:
        """Makes all heartbeats an hour old."""
        with sqlite3.connect(self.file) as connection:
            connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")
        connection.close()

    def look(self) -> None:
        """Looks for trials that were lost, as every worker does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study())


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes connections, which SQLAlchemy leaves to the garbage collector."""
    opened = []
    made = database.Storage.__init__

    def noted(storage: database.Storage, *of: Any) -> None:
        made(storage, *of)
        opened.append(storage)

    monkeypatch.setattr(database.Storage, "__init__", noted)
    yield
    for storage in opened:
        storage.close()


@pytest.fixture
def worker(trainer: Trainer, tmp_path: Path) -> Worker:
    worker = Worker(tmp_path)
    assert worker.run(1) == 0
    return worker


def test_number_of_trials_is_that_of_the_whole_study(
    worker: Worker, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker.run(5) == 0
    assert len(trainer.seen) == 5
    assert worker.run(5) == 0
    assert len(trainer.seen) == 5
    output = capsys.readouterr().out
    assert "5 trials were finished before\n" in output
    assert output.endswith(
        f"the best of 5 trials: convserve-train fit digits --recipe {worker.best}\n"
    )
    assert worker.states() == [COMPLETE] * 5
    rates = {recipe.learning_rate for recipe in trainer.seen}
    assert len(rates) == 5, "each is drawn by its own number"
    best = recipe_files.read(worker.best)
    assert best.learning_rate in rates
    assert [path.name for path in worker.best.parent.glob(".best-*")] == []


def test_best_recipe_of_a_study_has_its_name_without_another(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = str(tmp_path / "space.toml")
    monkeypatch.setenv("CONVSERVE_SWEEP_STORAGE", worker.url)
    command = ["sweep", "digits", "--study", "s1", "--space", space, "--grace", "60"]
    assert main([*command, "--trials", "1"]) == 0
    assert Path("s1.toml").read_bytes() == worker.best.read_bytes()


def test_lost_trial_is_tried_again_with_its_settings(worker: Worker, trainer: Trainer) -> None:
    lost = worker.dead()
    assert worker.run(3) == 0
    assert worker.states() == [COMPLETE, FAIL, COMPLETE, COMPLETE]
    again = [trial for trial in worker.trials() if trial.user_attrs.get("again") == lost]
    assert [trial.params for trial in again] == [worker.trials()[lost].params]
    assert again[0].params["learning_rate"] in {each.learning_rate for each in trainer.seen}


def test_trial_that_is_always_lost_is_given_up_after_three_attempts(
    worker: Worker, trainer: Trainer
) -> None:
    first = worker.dead()
    for _ in range(2):
        worker.look()
        worker.dead()
    assert worker.run(2) == 0
    assert worker.states() == [COMPLETE, FAIL, FAIL, FAIL]
    assert [trial.user_attrs.get("again") for trial in worker.trials()[2:]] == [first, first + 1]
    assert len(trainer.seen) == 1, "what is given up is one of the two"


def test_trial_whose_worker_died_before_its_first_heartbeat_is_replaced(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        assert 0 < seconds <= shared.LOOK_S
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    worker.dead(heartbeat=False)
    assert worker.run(2) == 0
    assert clock[0] > 60, "it may be starting"
    assert worker.states() == [COMPLETE, FAIL, COMPLETE]
    assert capsys.readouterr().out.count("waiting: nothing is left to begin, 1 trial running") == 1


def test_trial_that_is_one_too_many_is_not_trained(
    worker: Worker, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = optuna.Study.ask

    def second(study: optuna.Study, *of: Any) -> optuna.Trial:
        monkeypatch.setattr(optuna.Study, "ask", ask)
        worker.dead()  # asks between our count and our question
        return study.ask()

    monkeypatch.setattr(optuna.Study, "ask", second)
    assert worker.run(2) == 0
    one_too_many = worker.trials()[2]
    assert (one_too_many.state, one_too_many.params) == (FAIL, {})
    assert worker.states() == [COMPLETE, FAIL, FAIL, COMPLETE], "the dead one's was tried again"
    assert len(trainer.seen) == 2


def test_stopped_trial_is_no_loss_and_tried_again(
    worker: Worker, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(4):
        trainer.stop = len(trainer.seen) + 1
        assert worker.run(2) == 130
    assert capsys.readouterr().err.startswith(
        "convserve-train: stopped; 1 of 2 trials are finished and kept in study s1 of sqlite:///"
    )
    assert worker.run(2) == 0
    assert worker.states() == [COMPLETE, *[FAIL] * 4, COMPLETE]
    assert len({recipe.learning_rate for recipe in trainer.seen[1:]}) == 1


def test_trial_that_fails_of_itself_is_tried_again(
    worker: Worker, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    def disk() -> None:
        trainer.meanwhile = lambda: None
        raise OSError(28, "No space left on device", "pixels")

    trainer.meanwhile = disk
    assert worker.run(2) == 1
    assert "pixels: No space left" in capsys.readouterr().err
    assert worker.states() == [COMPLETE, FAIL, TrialState.WAITING]
    assert worker.run(2) == 0
    assert worker.states() == [COMPLETE, FAIL, COMPLETE]


def test_trial_that_was_given_to_another_worker_is_left_to_it(
    worker: Worker, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    def asleep() -> None:
        trainer.meanwhile = lambda: None
        worker.age()
        worker.look()

    trainer.meanwhile = asleep
    assert worker.run(2) == 0
    assert worker.states() == [COMPLETE, FAIL, COMPLETE]
    output = capsys.readouterr().out
    assert "trial 2: its heartbeat was missing for more than 60 s, it is left to who" in output
    assert len(trainer.seen) == 3


def test_stop_of_a_trial_that_another_worker_has_is_a_stop(
    worker: Worker, trainer: Trainer
) -> None:
    def asleep() -> None:
        trainer.meanwhile = lambda: None
        worker.age()
        worker.look()
        raise Stopped(2)

    trainer.meanwhile = asleep
    assert worker.run(2) == 130
    assert worker.states() == [COMPLETE, FAIL, TrialState.WAITING], "queued by one worker alone"


def test_heartbeat_that_cannot_be_written_is_reported_and_tried_again(worker: Worker) -> None:
    lines: list[str] = []
    address = database.parse(worker.url)
    storage = database.opened(address, 60, shared.stale, lines.append)
    trial_id = storage.trial_id(worker.study(), 0)
    with sqlite3.connect(worker.file) as connection:
        connection.execute("ALTER TABLE trial_heartbeats RENAME TO away")
    connection.close()
    storage.record_heartbeat(trial_id)
    assert lines == [f"no heartbeat: {worker.url}: no such table: trial_heartbeats"]


@pytest.mark.parametrize(
    ("more", "differing"),
    [
        (["--seed", "2"], "seed was 1, is 2"),
        (["--grace", "30"], "grace seconds was 60, is 30"),
        (["--set", "batch_size=7"], "batch_size was 64, is 7"),
    ],
)
def test_worker_of_another_sweep_is_refused(
    worker: Worker, more: list[str], differing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker.run(2, *more) == 1
    assert capsys.readouterr().err == (
        f"convserve-train: study s1 holds another sweep: {differing}; give it the same, or another "
        "name (--study)\n"
    )
    assert worker.states() == [COMPLETE]


def test_two_workers_that_both_found_a_new_study_are_distinguished_later(
    worker: Worker, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    def other() -> None:
        trainer.meanwhile = lambda: None
        study = worker.study()
        study.set_user_attr("settings", study.user_attrs["settings"] | {"seed": 5})

    trainer.meanwhile = other
    assert worker.run(5) == 1
    assert "study s1 holds another sweep: seed was 5, is 1; " in capsys.readouterr().err
    assert worker.states() == [COMPLETE] * 2


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hidden@127.0.0.1:1/trials",
        "postgresql://me@127.0.0.1:1/trials?password=hidden",
        "postgresql+psycopg://127.0.0.1:1/trials?user=me&sslpassword=hidden",
    ],
)
def test_password_is_refused_in_a_command_and_never_shown(
    url: str,
    tmp_path: Path,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = Worker(tmp_path)
    worker.url = url
    assert worker.run(1) == 2
    captured = capsys.readouterr()
    assert "expected a URL without a password" in captured.err
    assert "CONVSERVE_SWEEP_STORAGE" in captured.err
    monkeypatch.setenv("CONVSERVE_SWEEP_STORAGE", url)
    worker.url = ""
    assert worker.run(1) == 1  # nobody listens
    shown = capsys.readouterr()
    assert shown.err.startswith("convserve-train: postgresql+psycopg://")
    assert "127.0.0.1:1/trials: " in shown.err
    assert shown.err.count("\n") == 1
    for text in (captured.err, captured.out, shown.err, shown.out, repr(database.parse(url))):
        assert "hidden" not in text
    assert trainer.seen == []


def test_driver_of_postgresql_that_is_not_there_is_named_with_its_extra(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    worker.url = "postgresql://127.0.0.1/trials"
    assert worker.run(1) == 1
    assert capsys.readouterr().err == (
        "convserve-train: psycopg is not installed; run: pip install "
        "'convserve[train,sweep,postgresql]'\n"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("trials.db", "got something else"),
        ("postgresql://host:port/trials", "got something else"),
        ("redis://host/1", "got redis://"),
        ("sqlite://", "expected sqlite:///FILE, got no file"),
        ("sqlite:///:memory:", "expected sqlite:///FILE, got no file"),
        ("mysql+nothing://host/trials", "got mysql+nothing://"),
        ("mysql+pymysql://host/trials", "the driver of mysql+pymysql cannot be used: No module"),
    ],
)
def test_what_is_not_a_database_that_can_be_used_is_refused(url: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        database.parse(url)
    message = str(caught.value)
    assert message.startswith("--storage: ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["sweeps/1", "", "a b", ".", "-a", "a" * 101])
def test_study_in_a_database_has_a_plain_name(
    name: str, tmp_path: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(tmp_path)
    assert worker.run(1, f"--study={name}") == 2
    message = "--study: with a storage (--storage) expected a name of letters, digits and . _ -"
    assert message in capsys.readouterr().err
    assert not worker.file.exists()


def test_grace_of_no_second_is_refused(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.run(1, "--grace", "0") == 2
    assert "--grace: expected 1 or more, got 0" in capsys.readouterr().err


def test_tables_that_another_worker_makes_at_the_same_time_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(errors: list[Exception]) -> Callable[..., None]:
        def init(*of: Any, **more: Any) -> None:
            if errors:
                raise errors.pop()
            made(*of, **more)

        return init

    made = RDBStorage.__init__
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    address = database.parse(f"sqlite:///{tmp_path / 'trials.db'}")
    raced: list[Exception] = [
        IntegrityError("", {}, Exception("duplicate key")),
        OperationalError("", {}, Exception("table studies already exists")),
    ]
    monkeypatch.setattr(RDBStorage, "__init__", failing(raced))
    assert database.opened(address, 60, shared.stale, print).get_all_studies() == []
    away: list[Exception] = [OperationalError("", {}, Exception("connection refused"))]
    monkeypatch.setattr(RDBStorage, "__init__", failing(away))
    with pytest.raises(OperationalError):
        database.opened(address, 60, shared.stale, print)
