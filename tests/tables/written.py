"""The pictures of class folders as tables, and what they are read as."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from convserve_trainer.datasets import photos, registry
from convserve_trainer.datasets.pictures import Data, Pictures, Source

LABELS = ("red", "blue")  # in the order of their numbers, which is not that of the names


def files(folder: Path) -> list[tuple[str, str, Path]]:
    """Part, label and path of each picture of class folders, in the order of their names."""
    found = sorted(folder.glob("*/*/*.jpg"))
    return [(path.parts[-3], path.parts[-2], path) for path in found]


def write(
    path: Path,
    columns: Mapping[str, Any],
    groups: int = 4,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a Parquet file of columns, in row groups of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=groups)
    return path


def whole(path: Path, rows: Sequence[tuple[str, str, Path]], **more: Any) -> Path:
    """Writes pictures with columns bytes, label and split."""
    columns = {
        "bytes": [file.read_bytes() for _, _, file in rows],
        "label": [label for _, label, _ in rows],
        "split": [part for part, _, _ in rows],
    }
    return write(path, columns | more)


def source(path: Path, **more: Any) -> Source:
    return Source(path, 16, 24, **({"cache": "memory"} | more))


def load(path: Path, say: Callable[[str], None] = lambda _: None, **more: Any) -> Data:
    """Reads data in whatever format they have, as a training does."""
    found = registry.find_format(registry.PHOTOS, path)
    return found.reader.load(source(path, **more), None, say)


def arrays(pictures: Pictures) -> tuple[Any, list[int]]:
    """Pixels and labels of all pictures, in an order of their own."""
    [(pixels, labels)] = pictures.batches(range(len(pictures)), len(pictures))
    order = np.lexsort([*pixels.reshape(len(pixels), -1).T[:9], labels])
    return pixels[order], labels[order].tolist()


def check_same(data: Data, folder: Path) -> None:
    """Checks that data are those of class folders."""
    same = photos.load(source(folder), None, lambda _: None)
    assert data.labels == same.labels == ("blue", "red")
    assert data.spec == same.spec
    for one, other in ((data.train, same.train), (data.held_out, same.held_out)):
        (pixels, labels), (expected, numbers) = arrays(one), arrays(other)
        assert labels == numbers
        assert np.array_equal(pixels, expected)
