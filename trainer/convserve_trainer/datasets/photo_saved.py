"""Photographs that `save_to_disk` of Hugging Face's datasets has saved.

dataset_dict.json lists the parts, a folder each with state.json, which lists the Arrow files. A
single data set has its state.json at the top. The features are in the schema of each file.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convserve_host import os_errors
from convserve_trainer.datasets.photo_lists import Listed
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError

if TYPE_CHECKING:
    from convserve_trainer.datasets.tables import Table

PARTS_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"


def match(folder: Path) -> bool:
    """Returns whether it has the files that `save_to_disk` writes."""
    state = (folder / STATE_FILE).is_file() and (folder / INFO_FILE).is_file()
    return state or (folder / PARTS_FILE).is_file()


def rows(source: Source, say: Say) -> Iterator[Listed]:
    """Yields the rows of all parts; see `photo_lists.Lister`.

    Raises:
        DataError: a file is not as it should be.
    """
    from convserve_trainer.datasets import table_rows  # pyarrow is an extra

    assert source.folder is not None, "the format was found by its name"
    return table_rows.rows(_tables(source.folder), source, say)


def _tables(folder: Path) -> "list[Table]":
    from convserve_trainer.datasets.tables import Table

    if not (folder / PARTS_FILE).is_file():
        return [Table(folder / name, name) for name in _files(folder)]
    names = _strings(folder / PARTS_FILE, "splits", _json(folder / PARTS_FILE).get("splits"))
    return [
        Table(folder / part / name, f"{part}/{name}", part)
        for part in names
        for name in _files(folder / part)
    ]


def _files(folder: Path) -> list[str]:
    path = folder / STATE_FILE
    state = _json(path)
    if state.get("_indices_data_files"):
        raise DataError(
            f"{shown(path)}: expected rows in the order of the files, got a list of indices; save "
            "it anew with a later version of datasets"
        )
    listed = state.get("_data_files")
    files = [each.get("filename") for each in listed if isinstance(each, dict)] if listed else []
    return _strings(path, "_data_files", files)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{shown(path)}: {os_errors.reason(error)}") from error
    except ValueError as error:
        raise DataError(f"{shown(path)}: expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{shown(path)}: expected a JSON object, got {found!r:.40}")
    return found


def _strings(path: Path, field: str, found: object) -> list[str]:
    """Returns names that stay in the folder.

    Raises:
        DataError: one is not a name.
    """
    names = found if isinstance(found, list) else []
    if not names or not all(isinstance(n, str) and n and Path(n).name == n for n in names):
        raise DataError(f"{shown(path)}: {field}: expected names in this folder, got {found!r:.80}")
    return names
