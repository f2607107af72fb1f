"""A training that begins with the weights of another net, from the command line to the bundle."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convserve_trainer.bundles import bundle
from convserve_trainer.fitting import chunks
from convserve_trainer.fitting.progress import Progress
from convserve_trainer.main import main
from convserve_trainer.nets import keras_file, weights_file
from tests.trainer import idx_files

SIZE = (12, 16)
STEPS = 6  # an epoch, of 91 pictures
RECIPE = """
task = "digits"
net = [
  { layer = "conv", filters = 4, stride = 2, norm = "batch" },
  { layer = "conv", filters = 6 },
  { layer = "flatten" },
  { layer = "dense", units = 5 },
]
augmentation.shift = 0.05
optimizer = "adamw"
weight_decay = 0.01
learning_rate = 0.01
epochs = 2
batch_size = 16
"""

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published net of two classes, with its recipe and a set of three beside it.

    Set and recipe are in the folder above the models.
    """
    folder = tmp_path_factory.mktemp("two")
    (folder / "small.toml").write_text(RECIPE)
    idx_files.write(folder / "two", (40, 40), (20, 20), SIZE)
    idx_files.write(folder / "three", (31, 30, 30), (20, 20, 20), SIZE)
    assert _fit(folder / "two", folder / "models") == 0
    return folder / "models" / "two"


def _fit(data: Path, models: Path, *more: str) -> int:
    command = ["fit", "digits", "--data", str(data), "--recipe", str(data.parent / "small.toml")]
    return main([*command, "--models", str(models), *more])


def _three(two: Path) -> Path:
    return two.parents[1] / "three"


def _arrays(model: Path) -> dict[str, Any]:
    kept = weights_file.read(keras_file_of(model))
    return {
        f"{kind} {number} {index}": array
        for kind, layers in kept.items()
        for number, arrays in enumerate(layers)
        for index, array in enumerate(arrays)
    }


def keras_file_of(model: Path) -> Path:
    return model / "1" / keras_file.NAME


def test_body_that_is_frozen_to_the_end_is_that_of_the_other_net(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(_three(two), tmp_path, "--start-from", str(two), "--freeze-epochs", "2") == 0
    output = capsys.readouterr().out
    assert f"begins with     {keras_file_of(two)}: 4 of 5 layers, " in output
    assert "not taken       dense_1: the output is new\n" in output
    before, after = _arrays(two), _arrays(tmp_path / "three")
    same = [name for name in after if np.array_equal(before[name], after[name])]
    # Of the second dense layer, the output, nothing is the same.
    assert same == [name for name in after if not name.startswith("dense 1")]
    [origin] = bundle.read_manifest(tmp_path / "three").training.origins
    [file] = [weights_file.find(str(two))]
    assert (origin.source, origin.sha256) == (str(file), weights_file.digest(file))


def test_thawed_body_is_trained_and_a_slower_one_moves_less(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, moved = _arrays(two), []
    for number, rate in enumerate(("1.0", "0.01")):
        models = tmp_path / f"{number}"
        more = ["--start-from", str(two), "--freeze-epochs", "1", "--set", f"body_rate={rate}"]
        assert _fit(_three(two), models, *more) == 0
        output = capsys.readouterr().out
        stated = (
            f"from epoch 2 on all layers are trained; 4 layers at {float(rate):g} of the learning"
        )
        assert output.count(stated) == 1
        after = _arrays(models / "three")
        kernels = [name for name in after if name.startswith("conv2d") and name.endswith(" 0")]
        moved.append(max(np.abs(after[name] - before[name]).max() for name in kernels))
    assert 0 < moved[1] < moved[0] / 20


def _at_step(monkeypatch: pytest.MonkeyPatch, wanted: int, act: Callable[[], None]) -> None:
    """Does something once, after so many steps of a training."""
    monkeypatch.setattr(chunks, "CHUNK_S", 0)
    seen: list[int] = []

    def after(self: Progress, done: int, logs: Mapping[str, float]) -> None:
        seen.append(done)
        if len(seen) == wanted:
            act()

    monkeypatch.setattr(Progress, "step", after)


SETTINGS = ("--freeze-epochs", "1", "--epochs", "3", "--set", "body_rate=0.1")


@pytest.fixture(scope="module")
def never_stopped(two: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    models = tmp_path_factory.mktemp("never")
    assert _fit(_three(two), models, "--start-from", str(two), *SETTINGS) == 0
    return _arrays(models / "three")


@pytest.mark.parametrize(
    "step", [2, STEPS, STEPS + 2], ids=["while frozen", "as it ends", "after it"]
)
def test_stopped_and_resumed_training_ends_as_one_that_was_not(
    step: int,
    two: Path,
    never_stopped: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = ["--start-from", str(two), *SETTINGS, "--checkpoint-seconds", "0"]
    with monkeypatch.context() as patched:
        _at_step(patched, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert _fit(_three(two), tmp_path, *more) == 128 + signal.SIGTERM
    # The same content at another path is the same start.
    more[1] = str(keras_file_of(two))
    assert _fit(_three(two), tmp_path, *more, "--resume") == 0
    after = _arrays(tmp_path / "three")
    assert [name for name in after if not np.array_equal(after[name], never_stopped[name])] == []


def test_checkpoint_of_another_start_is_refused(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _fit(_three(two), tmp_path, "--run", str(tmp_path / "run"), "--epochs", "1") == 0
    more = ["--run", str(tmp_path / "run"), "--resume", "--start-from", str(two)]
    assert _fit(_three(two), tmp_path, *more) == 1
    assert "holds another training: begins_with was" in capsys.readouterr().err


def test_same_start_is_published_already_and_another_is_not(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--unless-published", "--epochs", "1"]
    start = ["--start-from", str(two)]
    assert _fit(_three(two), tmp_path, *start, *more) == 0
    assert _fit(_three(two), tmp_path, "--start-from", str(keras_file_of(two)), *more) == 0
    assert "is published already, from these settings and data" in capsys.readouterr().out
    assert _fit(_three(two), tmp_path, *more) == 0
    assert "differs from this training in: what the net begins with\n" in capsys.readouterr().out


def test_what_cannot_be_started_from_is_refused_before_the_data_are_read(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, other = tmp_path / "damaged.keras", tmp_path / "other.weights.h5"
    damaged.write_bytes(keras_file_of(two).read_bytes()[:-500])
    other.write_bytes(b"\x89HDF\r\n")
    text = tmp_path / "text.txt"
    text.write_text("no net")
    empty = tmp_path / "empty"
    empty.mkdir()
    for start, stated in (
        (tmp_path / "none", f"start_from: {tmp_path}/none: no such file or folder"),
        (damaged, f"{damaged} cannot be read (File is not a zip file)"),
        (other, f"{other} cannot be read ("),
        (text, "start_from: expected a bundle with net.keras, or a file that ends with "),
        (empty, "start_from: "),
    ):
        assert (
            _fit(two.parents[1] / "no data", tmp_path / "models", "--start-from", str(start)) == 1
        )
        assert stated in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_net_of_which_no_layer_fits_is_refused(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set", 'net=[{layer="conv",filters=9,kernel=5},{layer="flatten"}]']
    assert _fit(_three(two), tmp_path, "--start-from", str(two), *more) == 1
    error = capsys.readouterr().err
    assert "of which none fits: conv2d: expected [5, 5, 1, 9], got [3, 3, 1, 4]; dense: " in error


def test_frozen_epochs_need_a_start(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit(_three(two), two.parent, "--freeze-epochs", "1") == 2
    stated = "freeze_epochs and body_rate: expected with start_from, or a backbone with weights"
    assert stated in capsys.readouterr().err
