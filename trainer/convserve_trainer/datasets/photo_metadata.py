"""Photographs in folders with a metadata file, as Hugging Face's `imagefolder` has them.

metadata.csv, metadata.jsonl or metadata.parquet has the column file_name, a path relative to its
folder, and a label. There is one for all pictures, or one in the folder of each part. Folders of
parts without such a file are class folders, which `photos` reads.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from convserve_host import os_errors
from convserve_trainer.datasets import parts, photo_csv
from convserve_trainer.datasets.columns import Columns, chosen
from convserve_trainer.datasets.photo_lists import Listed
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
PICTURE = "file_name"


def match(folder: Path) -> bool:
    """Returns whether it, or the folder of a part in it, has a metadata file."""
    return folder.is_dir() and bool(_files(folder))


def rows(source: Source, say: Say) -> Iterator[Listed]:
    """Yields the rows of all metadata files; see `photo_lists.Lister`.

    Raises:
        DataError: a file is not as it should be.
    """
    top = source.folder
    assert top is not None, "the format was found by its name"
    for file, part in _files(top):
        below = file.parent.relative_to(top)
        for row in _read(file, source, say):
            name = (below / row.name).as_posix()
            first = name.partition("/")[0]
            yield replace(row, name=name, part=row.part or part or parts.named(first))


def _files(folder: Path) -> list[tuple[Path, str | None]]:
    """Returns the metadata files, and the parts that their folders are.

    Raises:
        DataError: there are two in a folder.
    """
    found: list[tuple[Path, str | None]] = []
    for part, inside in ((None, folder), *parts.folders(folder).items()):
        there = [inside / name for name in NAMES if (inside / name).is_file()]
        if len(there) > 1:
            names = " and ".join(path.name for path in there)
            raise DataError(f"{shown(inside)}: expected one metadata file, got {names}")
        found += [(path, part) for path in there]
    return found


def _read(file: Path, source: Source, say: Say) -> Iterator[Listed]:
    if file.suffix == ".csv":
        return photo_csv.listed(file, source.columns, PICTURE, source.labelled)
    if file.suffix == ".jsonl":
        return _lines(file, source.columns, source.labelled)
    # pyarrow is an extra.
    from convserve_trainer.datasets import table_rows
    from convserve_trainer.datasets.tables import Table

    return table_rows.rows([Table(file, file.name)], source, say, [PICTURE])


def _lines(file: Path, columns: Columns, labelled: bool) -> Iterator[Listed]:
    """Yields the pictures that a file of JSON lists, an object a line."""
    try:
        with file.open(encoding="utf-8") as text:
            for number, line in enumerate(text, 1):
                if line.strip():
                    yield _line(file, f"{shown(file)}, line {number}", line, columns, labelled)
    except OSError as error:
        raise DataError(f"{shown(file)}: {os_errors.reason(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(file)}: expected UTF-8: {error}") from error


def _line(file: Path, where: str, line: str, columns: Columns, labelled: bool) -> Listed:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: expected JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {row!r:.40}")
    picture = columns.picture or PICTURE
    path = row.get(picture)
    if not isinstance(path, str) or not path or "\0" in path:
        raise DataError(f"{where}: {picture}: expected a path, got {path!r:.40}")
    name = chosen(columns.label, ["label", "labels"], list(row))
    if name is None and labelled:
        raise DataError(
            f"{where}: expected the fields {picture} and {columns.label or 'label'}, got "
            f"{', '.join(row)}"
        )
    label = row.get(name) if name else None
    several = isinstance(label, list)
    if isinstance(label, str | int):
        label = [label]
    if label is not None and not (
        isinstance(label, list) and all(isinstance(each, str | int) for each in label)
    ):
        raise DataError(f"{where}: {name}: expected text or a number, got {label!r:.40}")
    split = row.get(columns.split or "split")
    if split is not None and not isinstance(split, str):
        raise DataError(f"{where}: split: expected text, got {split!r:.40}")
    labels = None if label is None else tuple(map(str, label))
    return Listed(where, file.parent / path, path, labels, split, several)
