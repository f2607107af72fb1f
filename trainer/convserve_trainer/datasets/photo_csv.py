"""A CSV file that lists photographs: the path, the label or labels, perhaps the part of each.

path,label,split                    path,labels
cats/1.jpg,cat,train                1.jpg,beach|sea
dogs/7.png,dog,validation           2.jpg,

A column `labels` in place of `label` has any number of them, or none. Paths are relative to the
folder of the file. Without a column `split` a share is held out (--validation-split). Other columns
are ignored.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from convserve_host import os_errors
from convserve_trainer.datasets import label_sets
from convserve_trainer.datasets.columns import Columns, chosen
from convserve_trainer.datasets.photo_lists import Listed
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError, MissingDataError

PATH, LABEL, LABELS, SPLIT = "path", "label", "labels", "split"


def match(folder: Path) -> bool:
    """Returns whether it is named as a CSV file is."""
    return folder.suffix.lower() == ".csv" and not folder.is_dir()


def rows(source: Source, say: Say) -> Iterator[Listed]:
    """Yields the rows of the file; see `photo_lists.Lister`.

    Raises:
        DataError: the file is not as it should be.
    """
    assert source.folder is not None, "the format was found by its name"
    yield from listed(source.folder, source.columns, PATH, source.labelled)


def listed(file: Path, columns: Columns, usual: str, labelled: bool) -> Iterator[Listed]:
    """Yields the pictures that a CSV file lists.

    Args:
        file: whose folder the paths are relative to.
        columns: that the user has named.
        usual: name of the column with the paths, where the user has named none.
        labelled: whether a column with labels is needed.

    Raises:
        DataError: the file is not as it should be.
    """
    for where, row, (picture, label, split) in _rows(file, columns, usual, labelled):
        path = row[picture]
        if not path or "\0" in path:
            raise DataError(f"{where}: {picture}: expected a path, got {path!r}")
        several = label == LABELS
        labels = None
        if label:
            cell = row[label]
            labels = label_sets.read(cell, f"{where}: {label}") if several else (cell,)
        part = row[split] if split else None
        yield Listed(where, file.parent / path, path, labels, part, several)


_Names = tuple[str, str | None, str | None]


def _rows(
    file: Path, columns: Columns, usual: str, labelled: bool
) -> Iterator[tuple[str, Mapping[str, str], _Names]]:
    """Yields where each row is, its columns, and the names of those with path, label and split."""
    try:
        # utf-8-sig: spreadsheets write a mark at the beginning.
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            names = _names(file, columns, usual, labelled, reader.fieldnames or ())
            for row in reader:
                where = f"{shown(file)}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(
                        f"{where}: expected {len(reader.fieldnames or ())} columns, got "
                        f"{sum(value is not None for value in row.values())}"
                        + (" or more" if None in row else "")
                    )
                yield where, row, names
    except FileNotFoundError as error:
        raise MissingDataError(f"no file {shown(file)}") from error
    except OSError as error:
        raise DataError(f"{shown(file)}: {os_errors.reason(error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{shown(file)}: expected CSV in UTF-8: {error}") from error


def _names(
    file: Path, columns: Columns, usual: str, labelled: bool, there: Sequence[str]
) -> _Names:
    picture = chosen(columns.picture, [usual], there)
    label = chosen(columns.label, [LABEL, LABELS], there)
    split = chosen(columns.split, [SPLIT], there)
    if (
        picture is None
        or (labelled and label is None)
        or (columns.label is None and LABEL in there and LABELS in there)
        or (columns.split is not None and split is None)
    ):
        raise DataError(
            f"{shown(file)}: expected the columns {columns.picture or usual} and "
            f"{columns.label or f'{LABEL} (or {LABELS})'}, and perhaps {columns.split or SPLIT}, "
            f"in the first line, got {', '.join(there) or 'nothing'}"
        )
    return picture, label, split
