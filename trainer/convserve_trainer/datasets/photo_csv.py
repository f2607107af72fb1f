"""A CSV file that lists photographs: the path, the label and perhaps the part of each.

path,label,split
cats/1.jpg,cat,train
dogs/7.png,dog,validation

Paths are relative to the folder of the file. Without a column `split` a share is held out
(--validation-split). Other columns are ignored.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from convserve_host import os_errors
from convserve_imaging.folder_names import class_name
from convserve_protos.bundle_pb2 import Manifest
from convserve_trainer.datasets import photos
from convserve_trainer.datasets.photo_folders import TRAIN, VALIDATION, ClassFolders
from convserve_trainer.datasets.photo_list import PhotoFiles
from convserve_trainer.datasets.pictures import Data, Pictures, Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError, MissingDataError, UsageError

PATH, LABEL, SPLIT = "path", "label", "split"
PARTS = (TRAIN, VALIDATION)


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
    if train.labels != validation.labels:
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
    parts: dict[str, list[tuple[str, str]]] = {}
    seen: dict[str, str] = {}
    for where, row in rows:
        path, label = row[PATH], class_name(row[LABEL])
        if not path or "\0" in path:
            raise DataError(f"{where}: {PATH}: expected a path, got {path!r}")
        if not label or not label.isprintable():
            raise DataError(f"{where}: {LABEL}: expected printable text, got {label!r}")
        if path in seen:
            raise DataError(f"{where}: {shown(Path(path))} is listed twice, see {seen[path]}")
        seen[path] = where
        part = row.get(SPLIT, SPLIT)
        if SPLIT in row and part not in PARTS:
            raise DataError(f"{where}: {SPLIT}: expected {TRAIN} or {VALIDATION}, got {part!r}")
        parts.setdefault(part, []).append((label, path))
    if SPLIT not in parts:
        parts = {name: parts.get(name, []) for name in PARTS}
    found = {name: _classes(file.parent, listed) for name, listed in parts.items()}
    labels = {label for part in found.values() for label in part.labels}
    if len(labels) < 2:
        raise DataError(f"{shown(file)} has one class only, {', '.join(labels)}: expected two")
    return found


def _classes(folder: Path, listed: list[tuple[str, str]]) -> ClassFolders:
    labels = tuple(sorted({label for label, _ in listed}))
    numbers = {label: number for number, label in enumerate(labels)}
    found = ((numbers[label], path) for label, path in sorted(listed))
    return ClassFolders(labels, PhotoFiles([folder] * len(labels), labels, found), ())


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yields where each row is, for messages, and its columns, of which none is missing."""
    try:
        # utf-8-sig: spreadsheets write a mark at the beginning.
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            missing = {PATH, LABEL} - {*(reader.fieldnames or ())}
            if missing:
                raise DataError(
                    f"{shown(file)}: expected the columns {PATH} and {LABEL}, and perhaps {SPLIT}, "
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
