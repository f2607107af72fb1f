"""What is wrong with a file of MNIST, as an error of the trainer."""

from collections.abc import Iterator
from contextlib import contextmanager

from convserve_imaging.errors import DatasetError
from convserve_trainer.errors import DataError


@contextmanager
def translated() -> Iterator[None]:
    """Raises the trainer's error for that of imaging, with the same message.

    Raises:
        DataError: a file is missing, unreadable, damaged or changed.
    """
    try:
        yield
    except DatasetError as error:
        raise DataError(str(error)) from error
