"""What a training can be watched with: history.csv, and event files for TensorBoard."""

from pathlib import Path
from typing import Any

from convserve_host import atomic_file
from convserve_trainer.nets import keras_backend
from convserve_trainer.runs.history import Epoch, History

TABLE, EVENTS = "history.csv", "tensorboard"
#: Folders of the events, and the figures in each: as Keras's own TensorBoard callback has them, but
#: for the mAP, which it does not know.
PARTS = {
    "train": {
        "epoch_loss": "loss",
        "epoch_accuracy": "accuracy",
        "epoch_learning_rate": "learning_rate",
    },
    "validation": {
        "epoch_loss": "val_loss",
        "epoch_accuracy": "val_accuracy",
        "epoch_map": "val_map",
    },
}


class Log:
    """The two in one folder.

    Args:
        folder: that they are written into.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[str, _Events] = {}

    def write(self, history: History) -> None:
        """Writes the epochs of the history that are not there yet to both.

        Raises:
            OSError: the file system refuses; the next call writes what is missing.
        """
        if not history.epochs:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_file.replaced(self._folder / TABLE) as temporary:
            temporary.write_text(history.csv())
        for part, names in PARTS.items():
            if getattr(history.epochs[0], names["epoch_loss"]) is None:
                continue  # no validation
            if part not in self._parts:
                self._parts[part] = _Events(self._folder / EVENTS / part)
            self._parts[part].write(history.epochs, names)

    def close(self) -> None:
        """Closes the files."""
        for events in self._parts.values():
            events.close()


class _Events:
    """The event files of a folder; steps are epochs counted from 0, as Keras has them."""

    def __init__(self, folder: Path) -> None:
        self._tensorflow = keras_backend.tensorflow()
        self._folder = folder
        self._next = 1 + max(self._steps(), default=-1)
        self._writer: Any = None

    def write(self, epochs: list[Epoch], names: dict[str, str]) -> None:
        """Adds the epochs that are not there; raises OSError."""
        try:
            if self._writer is None:
                self._writer = self._tensorflow.summary.create_file_writer(str(self._folder))
            for epoch in epochs[self._next :]:
                self._add(epoch, names)
            self._writer.flush()
        except self._tensorflow.errors.OpError as error:
            raise OSError(f"{self._folder}: {error.message}") from error
        self._next = max(self._next, len(epochs))

    def close(self) -> None:
        """Closes the file; what it says was flushed."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, epoch: Epoch, names: dict[str, str]) -> None:
        # Neither tf.summary.scalar nor Keras's callback works where TensorBoard is not installed.
        summary = self._tensorflow.compat.v1.Summary()
        for tag, name in names.items():
            if (value := getattr(epoch, name)) is not None:
                summary.value.add(tag=tag, simple_value=value)
        with self._writer.as_default(step=epoch.epoch - 1):
            self._tensorflow.summary.experimental.write_raw_pb(summary.SerializeToString())

    def _steps(self) -> list[int]:
        """Returns the steps that are there; a process that was killed may have cut the last."""
        found = []
        for file in sorted(self._folder.glob("events.out.tfevents.*")):
            records = self._tensorflow.data.TFRecordDataset(str(file)).as_numpy_iterator()
            try:
                for record in records:
                    event = self._tensorflow.compat.v1.Event.FromString(record)
                    if event.summary.value:
                        found.append(event.step)
            except self._tensorflow.errors.DataLossError:
                continue
        return found
