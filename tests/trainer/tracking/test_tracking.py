"""Trackers of a training: what is reported, and that none can harm it."""

import io
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from convserve_trainer.context import Context
from convserve_trainer.errors import AccuracyError
from convserve_trainer.fitting.progress import Progress
from convserve_trainer.host.signals import Stopped
from convserve_trainer.main import main
from convserve_trainer.runs.history import Epoch, History
from convserve_trainer.tracking import tracking
from convserve_trainer.tracking.tracker import EndedRun, Figures, StartedRun, Tracker
from convserve_trainer.tracking.tracking import Tracking
from tests.trainer.conftest import Small

pytestmark = pytest.mark.usefixtures("undrawn")
WAIT_S = 60.0
HERE = "tests.trainer.tracking.test_tracking"
EVENTS: list[tuple[str, Any]] = []


class Recorder(Tracker):
    """Keeps all events of all trainings."""

    def start(self, run: StartedRun) -> None:
        EVENTS.append(("start", run))

    def epoch(self, figures: Figures) -> None:
        EVENTS.append(("epoch", figures))

    def end(self, run: EndedRun) -> None:
        EVENTS.append(("end", run))

    def fail(self, problem: str, *, stopped: bool) -> None:
        EVENTS.append(("fail", (problem, stopped)))


class Broken(Recorder):
    """Fails at its first epoch."""

    def epoch(self, figures: Figures) -> None:
        raise ValueError("no space\nfor more")


class Hanging(Recorder):
    """Never comes back from its first epoch, until the test lets it go."""

    let_go = threading.Event()

    def epoch(self, figures: Figures) -> None:
        assert self.let_go.wait(WAIT_S)


class NotMade(Tracker):
    def __init__(self) -> None:
        raise OSError("no connection")


@pytest.fixture(autouse=True)
def _no_events() -> None:
    EVENTS.clear()
    Hanging.let_go.clear()


def names() -> list[str]:
    return [name for name, _ in EVENTS]


def fit(small: Small, models: Path, *more: str, trackers: tuple[str, ...] = ("Recorder",)) -> int:
    wanted = [option for name in trackers for option in ("--tracker", f"{HERE}:{name}")]
    return main(small.fit(models, *wanted, *more))


def test_training_is_reported_from_start_to_end(small: Small, tmp_path: Path) -> None:
    assert fit(small, tmp_path / "models", "--epochs", "2") == 0
    assert names() == ["start", "epoch", "epoch", "end"]
    (_, started), (_, first), (_, second), (_, ended) = EVENTS
    assert (started.name, started.resumed, started.earlier) == ("small", False, [])
    assert (started.recipe["epochs"], started.recipe["batch_size"]) == (2, 16)
    assert len(started.dataset_sha256) == 64
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert {"loss", "accuracy", "seconds", "learning_rate"} < first.keys()
    assert "val_loss" not in first or first["val_loss"] is not None
    file = tmp_path / "models" / "small" / "1" / "model.onnx"
    assert ended.published == str(file)
    assert ended.content == file.read_bytes()
    assert "history.csv" in ended.files


def test_each_seed_is_a_training_of_its_own(small: Small, tmp_path: Path) -> None:
    assert fit(small, tmp_path / "models", "--seeds", "2") == 0
    starts = [event for name, event in EVENTS if name == "start"]
    assert [run.recipe["seed"] for run in starts] == [1, 2]
    ends = [event.published for name, event in EVENTS if name == "end"]
    assert ends == [None, str(tmp_path / "models/small/1/model.onnx")]


def test_stopped_training_says_so_and_goes_on_with_what_was_reported(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("--run", str(tmp_path / "run"), "--epochs", "3")

    def stop(self: Progress, epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise Stopped(2)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "finish", stop)
        assert fit(small, tmp_path / "models", *run) == 130
    assert (names()[0], names()[-1]) == ("start", "fail")
    assert EVENTS[-1][1][1], "stopped by the user"
    EVENTS.clear()
    assert fit(small, tmp_path / "models", *run, "--resume") == 0
    started = EVENTS[0][1]
    assert started.resumed
    done = [figures["epoch"] for figures in started.earlier]
    assert done == [1]
    assert [e["epoch"] for name, e in EVENTS if name == "epoch"] == [2, 3]
    assert names()[-1] == "end"


def test_training_that_fails_says_why(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(context: Context) -> None:
        raise AccuracyError("accuracy: expected 0.9, got 0.8\nand more")

    monkeypatch.setattr("convserve_trainer.pipeline.check", refuse)
    assert fit(small, tmp_path / "models") == 1
    assert names() == ["start", "epoch", "fail"]
    assert EVENTS[-1][1] == ("accuracy: expected 0.9, got 0.8", False)


def test_tracker_that_raises_is_one_warning(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(small, tmp_path / "models", "--epochs", "2", trackers=("Broken", "NotMade")) == 0
    warnings = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")
    ]
    assert sorted(line.removesuffix("; the training goes on") for line in warnings) == [
        f"warning: tracker {HERE}:Broken: ValueError: no space; it is not called any more",
        f"warning: tracker {HERE}:NotMade: OSError: no connection; it is not called any more",
    ]
    assert names() == ["start"]
    assert (tmp_path / "models" / "small" / "1" / "model.onnx").is_file()


def test_tracker_that_hangs_is_given_up(
    small: Small,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("convserve_trainer.pipeline.Tracking", partial(Tracking, patience_s=0.2))
    try:
        assert fit(small, tmp_path / "models", trackers=("Hanging",)) == 0
    finally:
        Hanging.let_go.set()
    printed = capsys.readouterr().out
    assert f"warning: tracker {HERE}:Hanging: not done within 0.2 s; given up\n" in printed
    assert (tmp_path / "models" / "small" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("mine", "--tracker: expected MODULE:CLASS, got mine"),
        ("no_such_module:Mine", "--tracker: no_such_module:Mine cannot be imported: No module"),
        (f"{HERE}:Absent", "cannot be imported: module"),
        (f"{HERE}:HERE", f"--tracker: expected a class, got {HERE}:HERE, a str"),
    ],
)
def test_tracker_that_is_none_is_refused_before_any_training(
    given: str, problem: str, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(small.fit(tmp_path / "models", "--tracker", given)) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_class_in_the_current_folder_is_found(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_tracker.py").write_text(
        "from pathlib import Path\n"
        "from convserve_trainer.tracking.tracker import Tracker\n"
        "class Lines(Tracker):\n"
        "    def epoch(self, figures):\n"
        "        Path('seen.txt').write_text(str(figures['epoch']))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))  # taken back at the end
    assert main(small.fit(tmp_path / "models", "--tracker", "my_own_tracker:Lines")) == 0
    assert (tmp_path / "seen.txt").read_text() == "1"


def test_options_of_mlflow_need_mlflow(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(small.fit(tmp_path / "models", "--mlflow-register", "x")) == 2
    assert "--mlflow-register: expected --mlflow URI beside it, got none" in capsys.readouterr().err


def test_training_never_waits_while_a_tracker_is_slow() -> None:
    out = io.StringIO()
    make: Callable[[], Tracker] = Hanging
    with Tracking([("slow", make)], out, patience_s=0.1) as one:
        one.start(StartedRun("small", {}, "", Path()))
        history = History()
        for number in range(1, 4):
            history.epochs.append(Epoch(number, 0.5, 0.9, None, None, 1.0, 0.0, 0.1))
            one.write(history)  # comes back while the first epoch hangs
        assert out.getvalue() == ""
        one.end(EndedRun(None, b"", {}))
    assert out.getvalue() == "warning: tracker slow: not done within 0.1 s; given up\n"
    Hanging.let_go.set()
    assert tracking.PATIENCE_S > 0.1
