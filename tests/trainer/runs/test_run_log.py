"""history.csv and TensorBoard's events, read as their readers read them."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from convserve_trainer.nets import keras_backend
from convserve_trainer.runs.history import Epoch, History, read_csv
from convserve_trainer.runs.run_log import Log


def _history(epochs: int, validated: bool = True) -> History:
    return History(
        [
            Epoch(n, 1 / n, 0.5, 2 / n if validated else None, 0.25 if validated else None, 3, 0, 1)
            for n in range(1, epochs + 1)
        ]
    )


def events(folder: Path) -> list[tuple[int, str, float]]:
    """All figures in the files of a folder, in the order of their making, up to a cut."""
    tensorflow = keras_backend.tensorflow()
    found = []
    for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        records = tensorflow.data.TFRecordDataset(str(file)).as_numpy_iterator()
        with contextlib.suppress(tensorflow.errors.DataLossError):
            for record in records:
                event = tensorflow.compat.v1.Event.FromString(record)
                found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return found


def _log(folder: Path, *histories: History) -> None:
    log = Log(folder)
    for history in histories:
        log.write(history)
    log.close()


def test_both_have_every_epoch_once_though_they_are_written_again(tmp_path: Path) -> None:
    _log(tmp_path, _history(0), _history(1), _history(2))
    _log(tmp_path, _history(2), _history(3))  # a resumed training, which knows of two
    _log(tmp_path, _history(1), _history(4))  # the checkpoint of epoch 3 was damaged
    assert read_csv((tmp_path / "history.csv").read_text()) == _history(4).epochs
    train = events(tmp_path / "tensorboard/train")
    assert train == [
        figure
        for step, loss in enumerate((1, 1 / 2, pytest.approx(1 / 3), 1 / 4))
        for figure in (
            (step, "epoch_loss", loss),
            (step, "epoch_accuracy", 0.5),
            (step, "epoch_learning_rate", 1.0),
        )
    ]
    validation = events(tmp_path / "tensorboard/validation")
    assert [(step, tag) for step, tag, _ in validation] == [
        (step, tag) for step in range(4) for tag in ("epoch_loss", "epoch_accuracy")
    ]


def test_training_without_validation_has_no_events_of_it(tmp_path: Path) -> None:
    _log(tmp_path, _history(1, validated=False))
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == ["train"]


def test_event_that_was_cut_by_a_kill_is_written_again(tmp_path: Path) -> None:
    _log(tmp_path, _history(2))
    [file] = (tmp_path / "tensorboard/train").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    _log(tmp_path, _history(2))
    [other] = set((tmp_path / "tensorboard/train").iterdir()) - {file}
    file.unlink()
    assert [step for step, tag, _ in events(other.parent) if tag == "epoch_loss"] == [1]


def test_events_that_cannot_be_written_are_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    log = Log(tmp_path)
    with pytest.raises(OSError, match="tensorboard/train"):
        log.write(_history(1))
    log.close()


def test_map_of_several_labels_is_an_event_too(tmp_path: Path) -> None:
    _log(tmp_path, History([replace(epoch, val_map=0.75) for epoch in _history(2).epochs]))
    found = events(tmp_path / "tensorboard/validation")
    assert [each for each in found if each[1] == "epoch_map"] == [
        (0, "epoch_map", 0.75),
        (1, "epoch_map", 0.75),
    ]
