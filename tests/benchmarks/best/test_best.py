"""The study of the recipes: tiny trainings by its command, and docs that are its tables."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.best import results, trials
from benchmarks.harness.command import BenchmarkError
from convserve_trainer.recipes import recipe_files
from tests.benchmarks.tables import tables_of
from tests.trainer import idx_files

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "benchmarks.best", "digits")
STUDY = """
share = 0.25
final = "wide"

[recipe]
task = "digits"
net = [{ layer = "conv", filters = 2, stride = 2 }, { layer = "flatten" }]
learning_rate = 0.01
epochs = 2
batch_size = 16

[[trials]]
name = "start"
why = "the beginning"

[[trials]]
name = "wide"
why = "more filters, taught by the first"
after = "start"
changes = { "net.0.filters" = 4, "augmentation.levels" = 0.5 }
teachers = ["start"]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with a study, and data beside it."""
    idx_files.write(tmp_path / "data", (32, 32, 32), (10, 10, 10), (12, 16))
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "digits.toml").write_text(STUDY)
    return folder


def _run(study: Path, *more: str) -> subprocess.CompletedProcess[str]:
    folders = ["--data", str(study.parent / "data"), "--study", str(study)]
    command = [*COMMAND, *folders, "--work", str(study.parent / "work"), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def _lines(study: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (study / "digits.jsonl").read_text().splitlines()]


@pytest.mark.timeout(600)
def test_command_trains_what_is_not_done_and_prints_the_tables(study: Path) -> None:
    done = _run(study)
    assert done.returncode == 0, done.stderr
    first, second = _lines(study)
    assert [first["trial"], second["trial"]] == ["start", "wide"]
    assert (first["pictures"], first["epochs"], first["judged"]) == (24, 2, "validation")
    assert first["parameters"] == 2 * 9 + 2 + 5 * 7 * 2 * 3 + 3
    assert len(first["changed"]) == 5  # type: ignore[arg-type]
    table, _ = tables_of(done.stdout)
    assert [row[0] for row in table] == ["start", "wide"]
    assert table[0][2] == f"{first['correct'] / 24:.2%}"  # type: ignore[operator]
    assert "No net has been asked about the test set yet." in done.stdout

    again = _run(study, "--only", "start")
    assert again.stdout == done.stdout
    assert "epoch" not in again.stderr, "it is trained again"
    assert _lines(study) == [first, second]

    together = _run(study, "--together")
    assert together.returncode == 0, together.stderr
    [known] = tables_of(together.stdout)
    assert [row[0] for row in known[:3]] == ["start", "wide", "the mean answer of these 2"]
    assert known[0][1:] == [table[0][2], str(24 - first["correct"])]  # type: ignore[operator]
    all_right, one_right = (int(row[2]) for row in known[3:])
    assert all_right >= int(known[0][2]) >= one_right
    assert all_right >= int(known[1][2]) >= one_right

    # Another setting is another training; what follows from it is, too.
    (study / "digits.toml").write_text(STUDY.replace("epochs = 2", "epochs = 1"))
    shown = tables_of(_run(study, "--show").stdout)[0]
    assert [row[2] for row in shown] == ["not run yet"] * 2

    (study / "digits.toml").write_text(STUDY)
    tested = _run(study, "--test", "--seeds", "2")
    assert tested.returncode == 0, tested.stderr
    _, final = tables_of(tested.stdout)
    assert [row[0] for row in final] == ["1", "2", "mean", "standard deviation"]
    assert {(line["pictures"], line["judged"]) for line in _lines(study)[2:]} == {(30, "test")}


def test_nets_that_are_not_there_know_nothing_together(study: Path) -> None:
    done = _run(study, "--together")
    assert done.returncode == 1
    assert "expected the nets of two trials or more, got 0" in done.stderr
    nowhere = _run(study, "--together", "--data", str(study / "nowhere"))
    assert nowhere.returncode == 1
    assert "nowhere" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr


@pytest.mark.timeout(600)
def test_training_that_was_stopped_is_gone_on_with(study: Path) -> None:
    (study / "digits.toml").write_text(STUDY.replace("epochs = 2", "epochs = 4"))
    folders = ["--data", str(study.parent / "data"), "--study", str(study)]
    command = [*COMMAND, *folders, "--work", str(study.parent / "work"), "--only", "start"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip().startswith("2/4"):
                process.kill()
    assert not (study / "digits.jsonl").exists()
    done = _run(study, "--only", "start")
    assert done.returncode == 0, done.stderr
    [killed] = _lines(study)
    assert killed["resumed"] is True

    shutil.rmtree(study.parent / "work")
    (study / "digits.jsonl").unlink()
    assert _run(study, "--only", "start").returncode == 0
    [whole] = _lines(study)
    for name in ("correct", "loss", "changed", "digest"):
        assert killed[name] == whole[name], name


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('after = "start"', 'after = "stop"', "wide: expected an earlier trial, got stop"),
        ('final = "wide"', 'final = "wider"', "final: expected the name of a trial, got wider"),
        ('why = "the', 'how = "the', "unknown field"),
    ],
)
def test_damaged_study_is_refused(before: str, after: str, message: str, study: Path) -> None:
    (study / "digits.toml").write_text(STUDY.replace(before, after))
    with pytest.raises(BenchmarkError, match=message):
        trials.read("digits", study)


def test_change_that_a_recipe_does_not_have_is_refused(study: Path) -> None:
    (study / "digits.toml").write_text(STUDY.replace("levels", "level"))
    read = trials.read("digits", study)
    with pytest.raises(BenchmarkError, match="wide: augmentation.level is not a valid setting"):
        read.digest(read.trials[1], 1)


@pytest.mark.parametrize("task", recipe_files.TASKS)
def test_shipped_recipe_is_that_of_the_chosen_trial(task: str) -> None:
    study = trials.read(task)
    chosen = study.recipe_of(study.trial(study.final), 1).values()
    shipped = recipe_files.find("best", task).values()
    for values in (chosen, shipped):
        # bfloat16 is for CPUs with AMX alone, so that recipes leave it to an option of `fit`.
        for name in ("about", "min_accuracy", "mixed_precision"):
            values.pop(name)
    assert chosen == shipped


@pytest.mark.parametrize("task", recipe_files.TASKS)
def test_page_has_the_tables_of_the_results(task: str) -> None:
    study, found = trials.read(task), results.read(task)
    page = (ROOT / "docs/study.md").read_text()
    assert f"\n{results.table(study, found)}\n" in page
    assert f"\n{results.final_table(study, found)}\n" in page
