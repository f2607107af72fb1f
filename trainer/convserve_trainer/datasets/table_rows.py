"""The rows of tables as pictures of a list: which columns, which names the classes have."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from convserve_trainer.datasets import tables
from convserve_trainer.datasets.columns import Columns, chosen
from convserve_trainer.datasets.content import Content, TableRow
from convserve_trainer.datasets.photo_lists import Listed
from convserve_trainer.datasets.pictures import Source
from convserve_trainer.datasets.registry import Say
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.datasets.tables import Features, Table
from convserve_trainer.datasets.unpacked import Unpacked, unpacked
from convserve_trainer.errors import DataError

PICTURE_NAMES = ("image", "bytes", "path")
LABEL_NAMES = ("label", "labels")
SPLIT_NAMES = ("split",)


@dataclass(frozen=True)
class _Layout:
    """Where in a table things are; names of columns, or of fields of a struct: "image.bytes".

    Attributes:
        content: with the bytes of pictures; None where they are in files.
        path: of those files; of a picture without bytes, if there is such a field.
        label: names of classes, numbers, or lists of them; None where there is no such column.
        classes: their names, in the order of their numbers; None where numbers are the names.
        split: None where there is no such column.
        several: whether the column of labels has lists of them.
    """

    content: str | None
    path: str | None
    label: str | None
    classes: Sequence[str] | None
    split: str | None
    several: bool


def rows(
    files: Sequence[Table],
    source: Source,
    say: Say,
    picture_names: Sequence[str] = PICTURE_NAMES,
) -> Iterator[Listed]:
    """Yields the rows of tables, in their order; see `photo_lists.Lister`.

    Args:
        files: that are read.
        source: with the names of columns that the user has given.
        say: takes lines on what is done.
        picture_names: usual names of the column with pictures.

    Raises:
        DataError: a table cannot be read, or lacks a column.
    """
    for table in files:
        layout = _layout(table, source.columns, picture_names, source.labelled)
        kept = None if layout.content is None else unpacked(table, layout.content, say)
        yield from _rows(table, layout, kept)


def _rows(table: Table, layout: _Layout, kept: Unpacked | None) -> Iterator[Listed]:
    names = [name for name in (layout.path, layout.label, layout.split) if name]
    number = 0
    for batch in _batches(table, names, 0 if kept is None else len(kept.spans)):
        count = len(batch)
        paths, labels, splits = (
            tables.values(batch, name).to_pylist() if name else [None] * count
            for name in (layout.path, layout.label, layout.split)
        )
        for path, label, split in zip(paths, labels, splits, strict=True):
            where = f"{shown(table.path)} row {number}"
            content, name = _content(table, number, kept, path, where)
            yield Listed(
                where,
                content,
                name,
                _labels(where, label, layout.classes),
                split if layout.split else table.part,
                isinstance(label, list),
            )
            number += 1


def _batches(table: Table, names: Sequence[str], count: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows, also where no column of them is of interest."""
    if names:
        yield from table.batches(names, small=True)
    else:
        yield pa.record_batch({"row": np.arange(count)})


def _content(
    table: Table, row: int, kept: Unpacked | None, path: str | None, where: str
) -> tuple[Content, str]:
    """Returns the picture of a row, and its name."""
    if kept is None or (path and kept.spans[row, 1] < 0):
        if not path or "\0" in path:
            raise DataError(f"{where}: path: expected a path, got {path!r}")
        if kept is None:
            return table.path.parent / path, path
        return table.path.parent / path, f"{table.name}#{row:09}"
    start, length = kept.spans[row].tolist()
    return TableRow(table.path, row, kept.path, start, length), f"{table.name}#{row:09}"


def _labels(where: str, value: Any, classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Returns the names of a row's classes; None where it has no label."""
    if isinstance(value, list):
        return tuple(_label(where, each, classes) for each in value)
    # Hugging Face's datasets have -1 for an unknown class, as in the tests of competitions.
    if value is None or (classes is not None and value == -1):
        return None
    return (_label(where, value, classes),)


def _label(where: str, value: Any, classes: Sequence[str] | None) -> str:
    if isinstance(value, str):
        return value
    if classes is None:
        return str(value)
    if not 0 <= value < len(classes):
        raise DataError(f"{where}: label: expected 0 to {len(classes) - 1}, got {value}")
    return str(classes[value])


def _layout(
    table: Table, columns: Columns, picture_names: Sequence[str], labelled: bool
) -> _Layout:
    schema, known = table.schema, table.known
    features = [name for name, each in known.items() if _kind(each) == "Image"]
    picture = chosen(columns.picture, [*features, *picture_names], schema.names)
    label = chosen(columns.label, LABEL_NAMES, schema.names)
    # The name of a shard decides before a column that nobody has named.
    split = chosen(columns.split, () if table.part else SPLIT_NAMES, schema.names)
    for what, column, given, usual in (
        ("picture", picture, columns.picture, picture_names),
        ("label", label, columns.label, LABEL_NAMES[:1]),
        ("split", split, columns.split, ()),
    ):
        needed = given is not None or (what == "picture") or (what == "label" and labelled)
        if needed and column is None:
            raise DataError(
                f"{shown(table.path)}: expected a column {given or ' or '.join(usual)}, got "
                f"{', '.join(schema.names) or 'none'}; --columns {what}=NAME names another"
            )
    assert picture is not None, "a missing one was refused"
    content, path = _picture(table, schema.field(picture))
    several = label is not None and _is_list(schema.field(label).type)
    if label is not None:
        _check_label(table, schema.field(label))
    return _Layout(content, path, label, _classes(known, label), split, several)


def _picture(table: Table, field: pa.Field) -> tuple[str | None, str | None]:
    """Returns the columns with the bytes and with the path of a picture."""
    if _is_bytes(field.type):
        return field.name, None
    if _is_text(field.type):
        return None, field.name
    if pa.types.is_struct(field.type):
        inside = {field.type.field(n).name: field.type.field(n).type for n in _fields(field.type)}
        if "bytes" in inside and _is_bytes(inside["bytes"]):
            path = "path" in inside and _is_text(inside["path"])
            return f"{field.name}.bytes", f"{field.name}.path" if path else None
    raise DataError(
        f"{shown(table.path)}: {field.name}: expected the bytes of files (binary), their paths "
        f"(string), or a struct of bytes and path, got {field.type}"
    )


def _fields(struct: pa.StructType) -> range:
    return range(struct.num_fields)


def _check_label(table: Table, field: pa.Field) -> None:
    kind = field.type
    if _is_list(kind):
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(
            f"{shown(table.path)}: {field.name}: expected names or numbers of classes (string or "
            f"integer), got {field.type}"
        )


def _classes(known: Features, label: str | None) -> Sequence[str] | None:
    """Returns the names that the features state for the numbers of classes."""
    feature = known.get(label or "")
    if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]  # of a list of labels
    if not isinstance(feature, dict) or _kind(feature) != "ClassLabel":
        return None
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else None


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
