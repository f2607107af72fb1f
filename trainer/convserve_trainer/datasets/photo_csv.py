"""A CSV file that lists photographs: the path, the label or labels, perhaps the part of each.

path,label,split                    path,labels
cats/1.jpg,cat,train                1.jpg,beach|sea
dogs/7.png,dog,validation           2.jpg,

A column `labels` in place of `label` has any number of them, or none. Paths are relative to the
folder of the file. Without a column `split` a share is held out (--validation-split). Other columns
are ignored.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from convserve_host import os_errors
from convserve_imaging.folder_names import class_name
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.datasets import label_sets, photos
from convserve_trainer.datasets.photo_folders import TRAIN, VALIDATION, ClassFolders, Photo
from convserve_trainer.datasets.pictures import Data, Pictures, Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError, MissingDataError, UsageError

PATH, LABEL, LABELS, SPLIT = "path", "label", "labels", "split"
PARTS = (TRAIN, VALIDATION)
_Listed: TypeAlias = tuple[tuple[str, ...], str]  # labels of a picture, and its path


def match(folder: Path) -> bool:
    """Returns whether it is named as a CSV file is."""
    return folder.suffix.lower() == ".csv" and not folder.is_dir()


def load(source: Source, limit: int | None, say: Say) -> Data:
    """Returns photographs to train on, and those held out; see `photos.load`.

    Raises:
        DataError: the file is not as it should be, or too much that it lists cannot be read.
        UsageError: `source.split` does not suit the file, or `limit` is below the classes.
    """
    file = _file(source)
    parts = _parts(file)
    if SPLIT in parts:
        if source.split is None:
            raise UsageError(
                f"{shown(file)} has no column {SPLIT}: add --validation-split SHARE, or the column"
            )
        return photos.of_found(source, parts[SPLIT], None, limit, say)
    if source.split is not None:
        raise UsageError(f"{shown(file)} has a column {SPLIT}: leave out --validation-split")
    train, validation = (parts[name] for name in PARTS)
    if not train.several and train.labels != validation.labels:
        raise DataError(
            f"{shown(file)}: {TRAIN} has the classes {', '.join(train.labels)}, {VALIDATION} has "
            f"{', '.join(validation.labels) or 'none'}"
        )
    return photos.of_found(source, train, validation, limit, say)


def held_out(source: Source, manifest: Manifest, say: Say) -> Pictures:
    """Returns held-out photographs for a bundle: those of validation, the split's, or all.

    Raises:
        DataError: the file is not as it should be, has other classes than the bundle, or too much
            that it lists cannot be read.
    """
    parts = _parts(_file(source))
    found = parts.get(SPLIT) or parts[VALIDATION]
    return photos.held_out_of(source, found, manifest, say)


def _file(source: Source) -> Path:
    assert source.folder is not None, "the format was found by its name"
    return source.folder


def _parts(file: Path) -> dict[str, ClassFolders]:
    """Returns the photographs of each part; all under "split" where there is no such column."""
    rows = list(_rows(file))
    if not rows:
        raise DataError(f"{shown(file)} lists no picture")
    parts: dict[str, list[_Listed]] = {}
    seen: dict[str, str] = {}
    for where, row in rows:
        path = row[PATH]
        if not path or "\0" in path:
            raise DataError(f"{where}: {PATH}: expected a path, got {path!r}")
        if path in seen:
            raise DataError(f"{where}: {shown(Path(path))} is listed twice, see {seen[path]}")
        seen[path] = where
        part = row.get(SPLIT, SPLIT)
        if SPLIT in row and part not in PARTS:
            raise DataError(f"{where}: {SPLIT}: expected {TRAIN} or {VALIDATION}, got {part!r}")
        parts.setdefault(part, []).append((_label(where, row), path))
    if SPLIT not in parts:
        parts = {name: parts.get(name, []) for name in PARTS}
    every = [label for listed in parts.values() for label, _ in listed]
    if LABELS in rows[0][1]:
        names = tuple(sorted({name for some in every for name in some}))
        found = {name: _sets(file.parent, listed, names) for name, listed in parts.items()}
    else:
        found = {name: _classes(file.parent, listed) for name, listed in parts.items()}
    labels = {label for part in found.values() for label in part.labels}
    if len(labels) < 2:
        raise DataError(f"{shown(file)} has one class only, {', '.join(labels)}: expected two")
    return found


def _label(where: str, row: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the label of a row, or its labels."""
    if LABELS in row:
        return label_sets.read(row[LABELS], f"{where}: {LABELS}")
    label = class_name(row[LABEL])
    if not label or not label.isprintable():
        raise DataError(f"{where}: {LABEL}: expected printable text, got {label!r}")
    return (label,)


def _classes(folder: Path, listed: list[_Listed]) -> ClassFolders:
    labels = tuple(sorted({label for (label,), _ in listed}))
    numbers = {label: number for number, label in enumerate(labels)}
    found = [
        Photo(folder / path, f"{label}/{path}", numbers[label]) for (label,), path in sorted(listed)
    ]
    return ClassFolders(labels, tuple(found), ())


def _sets(folder: Path, listed: list[_Listed], labels: tuple[str, ...]) -> ClassFolders:
    numbers = {label: number for number, label in enumerate(labels)}
    found = [
        Photo(folder / path, path, -1, labels=tuple(numbers[each] for each in some))
        for some, path in sorted(listed, key=lambda each: each[1])
    ]
    return ClassFolders(labels, tuple(found), ())


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yields where each row is, for messages, and its columns, of which none is missing."""
    try:
        # utf-8-sig: spreadsheets write a mark at the beginning.
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            names = {*(reader.fieldnames or ())}
            if PATH not in names or (LABEL in names) is (LABELS in names):
                raise DataError(
                    f"{shown(file)}: expected the columns {PATH} and {LABEL}, or {PATH} and "
                    f"{LABELS}, and perhaps {SPLIT}, "
                    f"in the first line, got {', '.join(reader.fieldnames or ()) or 'nothing'}"
                )
            for row in reader:
                where = f"{shown(file)}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(
                        f"{where}: expected {len(reader.fieldnames or ())} columns, got "
                        f"{sum(value is not None for value in row.values())}"
                        + (" or more" if None in row else "")
                    )
                yield where, row
    except FileNotFoundError as error:
        raise MissingDataError(f"no file {shown(file)}") from error
    except OSError as error:
        raise DataError(f"{shown(file)}: {os_errors.reason(error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{shown(file)}: expected CSV in UTF-8: {error}") from error
