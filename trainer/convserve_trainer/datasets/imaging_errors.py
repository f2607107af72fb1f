"""What is wrong with a file of MNIST, as an error of the trainer."""

from collections.abc import Iterator
from contextlib import contextmanager

from convserve_imaging.errors import DatasetError, NoFolderError
from convserve_trainer.errors import DataError, MissingDataError


@contextmanager
def translated() -> Iterator[None]:
    """Raises the trainer's error for that of imaging, with the same message.

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
