"""sweep: what is drawn, what is kept through a kill, and what no trial may see."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from convserve_trainer.cli import data_options
from convserve_trainer.errors import UsageError
from convserve_trainer.main import main
from convserve_trainer.nets import keras_backend
from convserve_trainer.recipes import recipe_files
from convserve_trainer.sweep import space, study
from tests.trainer.drawn import draw_parts
from tests.trainer.sweep.conftest import Trainer, Unread

LECTURE = recipe_files.find("lecture", "digits")


def _sweep(file: Path, folder: Path, trials: int, *more: str) -> int:
    command = ["sweep", "digits", "--space", str(file), "--study", str(folder)]
    return main([*command, "--trials", f"{trials}", *more])


def _trials(folder: Path, *states: optuna.trial.TrialState) -> list[tuple[Any, ...]]:
    found = optuna.load_study(study_name="sweep", storage=study.storage(folder))
    return [
        (trial.state, trial.value, trial.params, trial.intermediate_values)
        for trial in found.get_trials(states=states or None)
    ]


def test_stopped_or_killed_sweep_goes_on_as_if_nothing_had_been(
    trainer: Trainer, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert _sweep(file, whole, 14) == 0
    output = capsys.readouterr().out
    assert "Trial" not in output, "Optuna says nothing"
    finished = _trials(whole)
    states = [state for state, *_ in finished]
    assert states.count(optuna.trial.TrialState.COMPLETE) >= 5
    assert optuna.trial.TrialState.PRUNED in states
    assert "stopped: after epoch 1, below the median" in output

    trainer.stop = len(trainer.seen) + 3
    assert _sweep(file, parts, 14) == 130
    captured = capsys.readouterr()
    assert captured.err == (
        f"convserve-train: stopped; 2 of 14 trials are finished and kept in {parts}\n"
        "go on with the same command\n"
    )
    killed = optuna.load_study(study_name="sweep", storage=study.storage(parts))
    killed.ask()  # a trial whose process is gone
    with (parts / study.FILE).open("ab") as log:
        log.write(b'{"half')
    trained = len(trainer.seen)
    assert _sweep(file, parts, 14) == 0
    assert len(trainer.seen) == trained + 12
    assert _trials(parts, *study.FINISHED) == finished
    assert len(_trials(parts, optuna.trial.TrialState.FAIL)) == 2
    assert _trials(parts, optuna.trial.TrialState.RUNNING) == []
    assert "2 trials were finished before\n" in capsys.readouterr().out

    assert (whole / "best.toml").read_text() != ""
    assert _sweep(file, whole, 14) == 0
    assert len(trainer.seen) == trained + 12, "nothing is left to do"
    assert _sweep(file, whole, 14, "--seed", "2") == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"convserve-train: {whole} holds another sweep: seed was 1, is 2; ")


def test_sweep_on_another_backend_is_another(
    trainer: Trainer,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "study"
    assert _sweep(file, folder, 1) == 0
    # This process has a backend already, and no trial of this test needs another.
    monkeypatch.setattr(keras_backend, "choose", lambda backend: None)
    monkeypatch.setattr(keras_backend, "chosen", lambda: "jax")
    assert _sweep(file, folder, 2, "--backend", "jax") == 1
    errors = capsys.readouterr().err
    assert f"{folder} holds another sweep: backend was tensorflow, is jax; " in errors
    assert _sweep(file, tmp_path / "other", 1, "--backend", "jax") == 0
    assert capsys.readouterr().out.endswith("best.toml --backend jax\n")


def test_sweep_on_a_backend_that_is_not_there_names_the_extra(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(keras_backend, "_chosen", None)
    monkeypatch.setattr(keras_backend, "find_spec", lambda name: None)
    assert _sweep(file, tmp_path / "study", 1, "--backend", "jax") == 1
    message = "jax is not installed; run: pip install 'convserve[train,jax]'"
    assert capsys.readouterr().err == f"convserve-train: {message}\n"


def test_best_is_a_recipe_and_the_table_has_five(
    trainer: Trainer, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _sweep(file, tmp_path / "study", 8) == 0
    path = tmp_path / "study" / "best.toml"
    best = recipe_files.find(str(path), "digits")
    distances = {abs(np.log10(recipe.learning_rate / 0.002)): recipe for recipe in trainer.seen}
    expected = distances[min(distances)]
    assert best.override(name="lecture") == expected
    assert best.validation_share == 0.1
    assert best.epochs == 3
    assert best.net != LECTURE.net or best.net[0] == LECTURE.net[0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(f": convserve-train fit digits --recipe {path}")
    complete = _trials(tmp_path / "study", optuna.trial.TrialState.COMPLETE)
    shown = min(len(complete), 5)
    assert lines[-2 - shown].split() == ["trial", "accuracy", "loss", "seconds", "settings"]
    accuracies = [float(line.split()[1]) for line in lines[-1 - shown : -1]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert path.read_text().startswith("# Trial ")
    for recipe in trainer.seen:
        assert 1e-4 <= recipe.learning_rate <= 1e-2
        assert recipe.batch_size in (32, 64, 128)


def test_of_equal_accuracies_the_lower_loss_is_better(trainer: Trainer, tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text("augmentation.shift = { low = 0.0, high = 0.9 }\nepochs = 1")
    assert _sweep(file, tmp_path / "study", 4) == 0
    best = recipe_files.find(str(tmp_path / "study" / "best.toml"), "digits")
    assert best.augmentation.shift == max(recipe.augmentation.shift for recipe in trainer.seen)


def test_trials_that_diverge_are_finished_and_none_is_best(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "space.toml"
    file.write_text("learning_rate = { low = 1e-5, high = 1e-4 }")
    assert _sweep(file, tmp_path / "study", 2) == 1
    captured = capsys.readouterr()
    assert "trial 2: stopped: the loss is nan, " in captured.out
    assert captured.err.startswith("convserve-train: none of 2 trials was trained to the end; ")
    assert len(trainer.seen) == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("lerning_rate = { low = 1, high = 2 }", "lerning_rate is not a valid setting (did"),
        (
            "[augmentation]\nshft = { low = 0, high = 0.1 }",
            "augmentation.shft is not a valid setting (did",
        ),
        ('"net.9.filters" = { low = 1, high = 2 }', "the recipe has no net.9.filters"),
        ("learning_rate = { low = 0.1 }", "learning_rate: expected { low = ..., high = ... }, w"),
        (
            "learning_rate = { lo = 1, high = 2 }",
            "learning_rate: expected { low = ..., high = ... }",
        ),
        ("learning_rate = { low = 2, high = 1 }", "learning_rate: low: expected less than high, g"),
        ("learning_rate = { low = 0, high = 1, log = true }", "learning_rate: low: expected mo"),
        ("batch_size = { low = 0, high = 9 }", "batch_size: expected 1 or more, got 0"),
        ("batch_size = { low = 1.5, high = 9 }", "batch_size: expected a whole number, got 1.5"),
        ("batch_size = { low = 1.0, high = 9.0 }", "batch_size: expected a whole number, got 1.0"),
        ("batch_size = { choices = [8] }", "batch_size: choices: expected two or more, got 1; gi"),
        ('optimizer = { choices = ["adam", "adm"] }', "optimizer: expected rmsprop, "),
        ("epochs = 5", "nothing is searched; give a field { low = ..., high = ... }"),
        ("validation_share = { low = 0.1, high = 0.3 }", "validation_share is the same for all "),
        ("epochs = {", "not TOML: "),
    ],
)
def test_wrong_spaces_are_one_clear_line(content: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        space.read(file, LECTURE)
    message = str(caught.value)
    assert message.startswith(f"{file}: {expected}")
    assert "\n" not in message


def test_whole_numbers_are_drawn_only_for_fields_that_take_them(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        "learning_rate = { low = 1, high = 2 }\nbatch_size = { low = 1, high = 2 }\n"
        "steps = { low = 1, high = 9 }\n"
        'net = { choices = [[{ layer = "flatten" }], [{ layer = "global_average" }]] }\n'
    )
    found = space.read(file, LECTURE)
    assert found.whole == {"batch_size", "steps"}
    drawn = found.draw(optuna.create_study().ask())
    assert isinstance(drawn["learning_rate"], float)
    assert drawn["net"] in tomllib.loads(file.read_text())["net"]["choices"]
    LECTURE.override(drawn)


def test_missing_optuna_is_named_with_its_extra(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert _sweep(file, tmp_path / "study", 1, "--data", str(tmp_path / "none")) == 1
    assert capsys.readouterr().err == (
        "convserve-train: optuna is not installed; run: pip install 'convserve[train,sweep]'\n"
    )


def test_no_trial_sees_what_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_parts(tmp_path / "data", {"red": 12, "blue": 12}, {"red": 2, "blue": 2})
    training = data_options.training

    def without(*of: Any) -> Any:
        load = training(*of)
        return lambda: replace(load(), held_out=Unread())

    monkeypatch.setattr(data_options, "training", without)
    file = tmp_path / "space.toml"
    file.write_text("learning_rate = { low = 1e-3, high = 1e-2 }\nepochs = 1\nsteps = 2")
    command = ["sweep", "photos", "--recipe", "quick", "--data", str(folder), "--trials", "2"]
    command += ["--set", "height=22", "--set", "width=24", "--set", "batch_size=8"]
    assert recipe_files.find("quick", "photos").validation_steps, (
        "on what is held out, but not here"
    )
    assert main([*command, "--space", str(file), "--study", str(tmp_path / "study")]) == 0
    assert "none that is held out\n" in capsys.readouterr().out
    assert recipe_files.read(tmp_path / "study" / "best.toml").validation_share == 0.1


def test_share_from_0_to_1_is_no_whole_number_whichever_settings_the_recipe_writes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "space.toml"
    file.write_text('"augmentation.levels" = { low = 0, high = 1 }\nepochs = { low = 1, high = 2 }')
    assert space.read(file, LECTURE).whole == {"epochs"}
