"""Names of classes that the data know by numbers only: an option's, a file's, or the numbers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from convserve_host import os_errors
from convserve_imaging.folder_names import class_name
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError, UsageError

FILE = "labels.txt"


def class_names(
    folder: Path,
    given: Sequence[str] | None,
    count: int,
    known: Sequence[str] | None = None,
    first: int = 0,
) -> tuple[str, ...]:
    """Returns the names of the classes of a data set, in the order of their numbers.

    Args:
        folder: of the data; its labels.txt, if there is one, has a name a line.
        given: names that replace the file's; None for none.
        count: of classes that the data have.
        known: names where neither is there, of a bundle or a data set; None for the numbers.
        first: number of the first class.

    Raises:
        DataError: the data have one class only, or more than names; their numbers begin with
            another one than 0, and the names are not as many; a name is empty, not printable, or
            there twice; or the file cannot be read.
    """
    names, where = given, "--labels"
    if names is None and (folder / FILE).exists():
        names, where = _read(folder / FILE), shown(folder / FILE)
    if names is None:
        names = known or [str(number) for number in range(first, first + count)]
        where = "the bundle"  # the numbers, and Fashion-MNIST's names, are always enough
    if first and count != len(names):
        raise DataError(
            f"{shown(folder)}: the labels of its pictures are {first} to {first + count - 1}: "
            f"expected {count} names from {where}, got {len(names)}"
        )
    if count > len(names):
        raise DataError(
            f"{shown(folder)}: a picture has the label {count - 1}, but {where} names "
            f"{len(names)} classes, 0 to {len(names) - 1}"
        )
    if len(names) < 2:
        raise DataError(f"{shown(folder)} has one class only: two or more are needed")
    names = [class_name(name) for name in names]
    for number, name in enumerate(names):
        if not name or not name.isprintable():
            raise DataError(
                f"{where}: the name of class {number} is {name!r}, which is not printable text"
            )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{where}: {twice[0]!r} is there twice; each class has a name of its own")
    return tuple(names)


def check_limit(limit: int | None, classes: int) -> None:
    """Checks that a picture of each class can be trained on.

    Raises:
        UsageError: `limit` is too small.
    """
    if limit is not None and limit < classes:
        raise UsageError(
            f"--limit: expected {classes} or more, a picture of each class, got {limit}"
        )


def _read(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{shown(path)}: {os_errors.reason(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(path)}: not a text file ({error.reason})") from error
    return [line.strip() for line in text.strip().splitlines()]
