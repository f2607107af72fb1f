"""The run of a process that keeps nothing, because process 0 of its training does."""

from convserve_trainer.runs.history import History
from convserve_trainer.runs.run_folder import Run
from convserve_trainer.runs.training_state import Training


class FollowedRun(Run):
    """A run of which process 0 has the folder.

    `kept` is what process 0 keeps, unless its file system refuses.
    """

    def __enter__(self) -> "FollowedRun":
        """Makes nothing, and locks nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Removes nothing."""

    def replace(self) -> bool:
        """Returns False: process 0 knows what is there."""
        return False

    def due(self) -> bool:
        """Returns False: process 0 decides."""
        return False

    def keep(self, training: Training) -> None:
        """Writes nothing."""
        self.kept = training.position

    def log(self, history: History) -> None:
        """Writes nothing."""
