"""Errors that the trainer's user can cause or mend; each message is one line that says how."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from convserve_bundle.errors import BundleError, PublishError, SigningError
from convserve_imaging.errors import DatasetError, NoFolderError
from convserve_store.errors import StoreError


class TrainerError(Exception):
    """Anything that ends a command with one line on the terminal.

    Attributes:
        status: Exit status of the command: 2 where the command line is wrong, 3 where `drift` finds
            some, else 1.
    """

    status: ClassVar[int] = 1


#: All of it, with the errors of bundles.
USER_ERRORS = (TrainerError, BundleError, PublishError, SigningError, StoreError)


class UsageError(TrainerError):
    """An option out of its range."""

    status = 2


class DataError(TrainerError):
    """Data that is missing, damaged or cannot be fetched."""


class MissingDataError(DataError):
    """A folder of data that was named and is not there."""

    status = 2


class DriftError(TrainerError):
    """Pictures that are unlike those that a net knows: what was asked for is printed before."""

    status = 3


class TrackerError(TrainerError):
    """A tracker of experiments that refuses, or cannot be reached."""


class StartError(TrainerError):
    """Weights that a net should start from and cannot: no such file, damaged, of another net."""


class CheckpointError(TrainerError):
    """No training to go on with, another one, a damaged one, or one that cannot be kept."""


class ExportError(TrainerError):
    """A graph that breaks the contract of a bundle."""


class ParityError(ExportError):
    """ONNX Runtime and Keras do not agree on the exported net."""


class AccuracyError(TrainerError):
    """A net that misses the accuracy floor of its recipe."""


class DivergedError(TrainerError):
    """A loss, or weights, that are not finite any more."""


class LostProcessError(TrainerError):
    """Of several processes that train a net together, one has ended or does not come."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C or SIGTERM during training.

    Args:
        message: what is kept and how to go on.
        status: that the program exits with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def translate_imaging_errors() -> Iterator[None]:
    """Raises the trainer's error for that of imaging about a data set, with the same message.

    Raises:
        MissingDataError: the folder is not there.
        DataError: a file is missing, unreadable, damaged or changed.
    """
    try:
        yield
    except NoFolderError as error:
        raise MissingDataError(str(error)) from error
    except DatasetError as error:
        raise DataError(str(error)) from error
