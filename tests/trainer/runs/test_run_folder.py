"""The folder of a run: which checkpoint is used, which are deleted, what is refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convserve_protos.bundle_pb2 import InputSpec
from convserve_trainer.errors import CheckpointError, UsageError
from convserve_trainer.nets import models
from convserve_trainer.recipes import recipe_files
from convserve_trainer.recipes.recipe import Recipe
from convserve_trainer.runs import run_folder, run_key
from convserve_trainer.runs.history import Epoch
from convserve_trainer.runs.run_folder import Run, found
from convserve_trainer.runs.run_key import CheckpointPolicy, RunKey
from convserve_trainer.runs.training_state import Means, Position, Training, UnderWay
from tests.program import Program

LECTURE = recipe_files.find("lecture", "digits")

SETTINGS = run_key.make_run_key(LECTURE, "0" * 64)


def _run(folder: Path, settings: RunKey = SETTINGS, named: bool = True) -> Run:
    return Run(folder, settings, 60, named)


@pytest.fixture(scope="module")
def training() -> Training:
    model = models.build(
        LECTURE, InputSpec(height=28, width=28, channels=1), classes=10, pictures=60_000
    )
    model.optimizer.build(model.trainable_variables)  # as the first step does
    return Training(model)


def _at(training: Training, position: Position) -> Training:
    epochs = [Epoch(n + 1, 1, 1, None, None, 1, 0, 1e-3) for n in range(position.epochs)]
    training.history.epochs[:] = epochs
    training.under_way = UnderWay(position.steps, Means(1.5, 3, 7), 0.1 + 0.2, 0.1)
    return training


def _keep(folder: Path, training: Training, *positions: Position) -> None:
    with _run(folder) as run:
        for position in positions:
            run.keep(_at(training, position))


def _path(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / name


def test_two_newest_and_the_last_finished_epoch_are_kept(
    tmp_path: Path, training: Training
) -> None:
    steps = [Position(1, step) for step in (10, 20, 30)]
    _keep(tmp_path, training, Position(0, 5), Position(1), *steps)
    assert found(tmp_path) == [Position(1, 30), Position(1, 20), Position(1)]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "epoch-0001-step-000020.keras",
        "epoch-0001-step-000030.keras",
        "epoch-0001.keras",
    ]
    _keep(tmp_path, training, Position(2), Position(3))
    assert found(tmp_path) == [Position(3), Position(2)]


def test_training_comes_back_as_it_was(tmp_path: Path, training: Training) -> None:
    _keep(tmp_path, training, Position(2, 30))
    with _run(tmp_path) as run:
        back = run.newest(3, print)
        assert run.kept == back.position == Position(2, 30)
    assert back.under_way == training.under_way
    assert back.history == training.history
    assert all(map(np.array_equal, back.model.get_weights(), training.model.get_weights()))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: str, tmp_path: Path, training: Training
) -> None:
    _keep(tmp_path, training, Position(1), Position(1, 30))
    path = _path(tmp_path, "epoch-0001-step-000030.keras")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"cut": whole[:-100], "flipped": flipped, "empty": b""}[damage])
    warnings: list[str] = []
    with _run(tmp_path) as run:
        assert run.newest(3, warnings.append).position == Position(1)
    [warning] = warnings
    assert warning.startswith(f"warning: {path} is damaged (")
    assert warning.endswith("); it is passed over for the one before it")
    _path(tmp_path, "epoch-0001.keras").write_bytes(b"PK\3\4")
    with _run(tmp_path) as run, pytest.raises(CheckpointError, match="no checkpoint in .* can be"):
        run.newest(3, warnings.append)


def test_leftover_of_a_kill_while_writing_is_no_checkpoint(
    tmp_path: Path, training: Training
) -> None:
    _keep(tmp_path, training, Position(1))
    _path(tmp_path, ".writing.keras").write_bytes(b"half")
    with _run(tmp_path) as run:
        assert run.newest(3, print).position == Position(1)
        run.keep(_at(training, Position(2)))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_fewer_epochs_take_the_last_finished_one(tmp_path: Path, training: Training) -> None:
    _keep(tmp_path, training, Position(2), Position(2, 30))
    with _run(tmp_path) as run:
        assert run.newest(2, print).position == Position(2)
        with pytest.raises(CheckpointError, match=r"2 epochs are finished already; --epochs 2 or"):
            run.newest(1, print)


@pytest.mark.parametrize(
    ("recipe", "data", "differing"),
    [
        (LECTURE.override(seed=2), "0", "seed was 1, is 2"),
        (LECTURE.override(steps=9, batch_size=32), "0", "batch_size was 64, is 32, steps was not"),
        (LECTURE, "1", "data was 000000000000, is 111111111111"),
    ],
)
def test_other_settings_or_data_are_refused_and_named(
    recipe: Recipe, data: str, differing: str, tmp_path: Path, training: Training
) -> None:
    _keep(tmp_path, training, Position(1))
    message = (
        rf"{tmp_path} holds another training: {differing}.*; give it the same, or start anew in"
    )
    other = run_key.make_run_key(recipe, data * 64)
    with _run(tmp_path, other) as run, pytest.raises(CheckpointError, match=message):
        run.newest(5, print)
    longer = LECTURE.override(epochs=9, min_accuracy=0.1, about="the same, said otherwise")
    with _run(tmp_path, run_key.make_run_key(longer, "0" * 64)) as run:
        assert run.newest(9, print).position == Position(1)


def test_unnamed_folders_tell_trainings_apart_and_name_the_difference(
    tmp_path: Path, training: Training
) -> None:
    other = run_key.make_run_key(LECTURE.override(seed=2), "0" * 64)
    folders = [run_key.unnamed_folder(tmp_path, "mnist", each) for each in (SETTINGS, other)]
    _keep(folders[0], training, Position(1))
    message = rf"no training with these .*; that in {folders[0]} is another: seed was 1, is 2"
    with pytest.raises(CheckpointError, match=message), _run(folders[1], other, named=False) as run:
        run.newest(5, print)
    assert not folders[1].exists()
    reworded = run_key.make_run_key(LECTURE.override(about="the same"), "0" * 64)
    folder = run_key.unnamed_folder(tmp_path, "mnist", reworded)
    here = rf"go on with that in {folders[0]}: --run {folders[0]}"
    with pytest.raises(CheckpointError, match=here), _run(folder, reworded, named=False) as run:
        run.newest(5, print)
    elsewhere = run_key.unnamed_folder(tmp_path, "cats", SETTINGS)
    with (
        pytest.raises(CheckpointError, match=f"it would be in {elsewhere}"),
        _run(elsewhere) as run,
    ):
        run.newest(5, print)


def test_new_training_in_an_unnamed_folder_replaces_the_one_before(
    tmp_path: Path, training: Training
) -> None:
    _keep(tmp_path, training, Position(3), Position(3, 20))
    with _run(tmp_path, named=False) as run:
        assert run.replace()
        assert found(tmp_path) == [Position(3, 20), Position(3)]
        run.keep(_at(training, Position(0, 10)))
        assert found(tmp_path) == [Position(0, 10)]
        run.keep(_at(training, Position(1)))
    assert found(tmp_path) == [Position(1), Position(0, 10)]


def test_second_process_in_a_folder_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from convserve_trainer.runs.run_folder import Run\n"
        f"with Run(Path({str(tmp_path)!r}), {{}}, 60, True): print('in', flush=True); input()"
    )
    command = [sys.executable, "-c", code]
    with Program[bytes](command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        with pytest.raises(CheckpointError, match=f"another training is running in {tmp_path}"):
            _run(tmp_path).__enter__()
        process.kill()
    with _run(tmp_path):
        pass


def test_folder_that_holds_something_is_refused_to_a_new_training(
    tmp_path: Path, training: Training
) -> None:
    run_folder.check(CheckpointPolicy(tmp_path / "new"))
    with pytest.raises(CheckpointError, match=r"nothing to resume: no checkpoint is in .*/new"):
        run_folder.check(CheckpointPolicy(tmp_path / "new", resume=True))
    with _run(tmp_path / "begun"):
        pass
    run_folder.check(CheckpointPolicy(tmp_path / "begun"))  # killed before anything was kept

    _keep(tmp_path / "full", training, Position(1, 20))
    run_folder.check(CheckpointPolicy(tmp_path / "full", resume=True))
    for name in ("full", "begun", "new"):
        run_folder.check(CheckpointPolicy(tmp_path / name, resume=True, or_start=True))
    with pytest.raises(CheckpointError, match=r"kept up to epoch 2, step 20: go on with --resume"):
        run_folder.check(CheckpointPolicy(tmp_path / "full"))
    with pytest.raises(CheckpointError, match=r"holds files, but no checkpoint: name a new folder"):
        run_folder.check(CheckpointPolicy(tmp_path))
    with pytest.raises(CheckpointError, match=r"holds files, but no checkpoint: name a new folder"):
        run_folder.check(CheckpointPolicy(tmp_path, resume=True, or_start=True))
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="--run: expected a folder, got "):
        run_folder.check(CheckpointPolicy(tmp_path / "file"))


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_seconds_out_of_their_range_are_wrong_usage(seconds: float) -> None:
    with pytest.raises(
        UsageError, match=f"--checkpoint-seconds: expected 0 or more, got {seconds:g}"
    ):
        CheckpointPolicy(seconds=seconds)
