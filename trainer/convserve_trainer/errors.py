"""Errors that the trainer's user can cause or mend; each message is one line that says how."""

from typing import ClassVar

from convserve_bundle.errors import BundleError, PublishError


class TrainerError(Exception):
    """Anything that ends a command with one line on the terminal.

    Attributes:
        status: Exit status of the command: 2 where the command line is wrong, else 1.
    """

    status: ClassVar[int] = 1


#: All of it, with what is said of bundles.
USER_ERRORS = (TrainerError, BundleError, PublishError)


class UsageError(TrainerError):
    """An option out of its range."""

    status = 2


class DataError(TrainerError):
    """Data that is missing, damaged or cannot be fetched."""


class MissingDataError(DataError):
    """A folder of data that was named and is not there."""

    status = 2


class CheckpointError(TrainerError):
    """No training to go on with, another one, a damaged one, or one that cannot be kept."""


class ExportError(TrainerError):
    """A graph that breaks the contract of a bundle."""


class ParityError(ExportError):
    """ONNX Runtime and Keras do not agree on the exported net."""


class AccuracyError(TrainerError):
    """A net that misses the accuracy floor of its recipe."""


class DivergedError(TrainerError):
    """A loss, or weights, that are no finite numbers any more."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C or SIGTERM during training.

    Args:
        message: what is kept and how to go on.
        status: that the program exits with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
