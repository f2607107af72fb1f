"""Tables of pictures: Parquet files, and the Arrow files of Hugging Face's `save_to_disk`.

They are read in small batches, so that a table may be larger than the memory.

Source: Apache Parquet; Apache Arrow, "IPC Streaming Format"; Hugging Face's datasets keeps its
features as JSON in the schema's metadata, under the key "huggingface".
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from convserve_host import os_errors
from convserve_trainer.datasets.skipped import shown
from convserve_trainer.errors import DataError, MissingDataError

ARROW = ".arrow"

#: Rows that are in memory at a time: photographs as their files have them.
_ROWS = 32
#: Rows of columns without pictures.
_SMALL_ROWS = 8192
#: Bytes that are read ahead of a column, so that a row group is never in memory as a whole.
_BUFFER_BYTES = 2**20

Features = Mapping[str, Any]
"""Of Hugging Face's datasets, by the names of their columns."""


@dataclass(frozen=True)
class Table:
    """A file of rows.

    Attributes:
        path: of the file.
        name: its path below the folder of the data.
        part: of the data that all its rows belong to; None where the file's name says none.
        features: that lie beside it; those of its own schema come first.
    """

    path: Path
    name: str
    part: str | None = None
    features: Features | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """Its columns.

        Raises:
            DataError: it cannot be read.
        """
        with self._read():
            if self.path.suffix == ARROW:
                with pa.memory_map(str(self.path)) as file:
                    return pa.ipc.open_stream(file).schema
            with pq.ParquetFile(self.path) as file:
                return file.schema_arrow

    @cached_property
    def known(self) -> Features:
        """The features of Hugging Face's datasets, if any."""
        text = (self.schema.metadata or {}).get(b"huggingface")
        if text is None:
            return self.features or {}
        try:
            found = json.loads(text)["info"]["features"]
            return found if isinstance(found, dict) else {}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{shown(self.path)}: the metadata of Hugging Face's datasets are damaged: "
                f"{error!r}"
            ) from error

    def batches(self, columns: Sequence[str], small: bool) -> Iterator[pa.RecordBatch]:
        """Yields the rows in their order, some at a time, with these columns alone.

        Args:
            columns: names; "image.path" for a field of a struct.
            small: whether they are without pictures.

        Raises:
            DataError: it cannot be read.
        """
        rows = _SMALL_ROWS if small else _ROWS
        with self._read():
            if self.path.suffix == ARROW:
                yield from self._arrow_batches(columns, rows)
                return
            with pq.ParquetFile(
                self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False, memory_map=False
            ) as file:
                yield from file.iter_batches(rows, columns=list(columns), use_threads=False)

    def _arrow_batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """The file is mapped into memory, so a field that is not looked at costs nothing."""
        names = list(dict.fromkeys(column.partition(".")[0] for column in columns))
        with pa.memory_map(str(self.path)) as file:
            for batch in pa.ipc.open_stream(file):
                chosen = batch.select(names)
                for start in range(0, len(chosen), rows):
                    yield chosen.slice(start, rows)

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise MissingDataError(f"no file {shown(self.path)}") from error
        except pa.ArrowException as error:
            kind = "the stream format of Arrow" if self.path.suffix == ARROW else "Parquet"
            why = str(error).partition("\n")[0]
            raise DataError(f"{shown(self.path)}: expected {kind}: {why}") from error
        except OSError as error:
            # pyarrow's own, of a damaged file, have no number.
            why = os_errors.reason(error) if error.errno else str(error).partition("\n")[0]
            raise DataError(f"{shown(self.path)}: {why}") from error


def values(batch: pa.RecordBatch, column: str) -> pa.Array:
    """Returns the values of a column, or of a field of a struct: "image.bytes"."""
    name, _, field = column.partition(".")
    found = batch.column(name)
    # Not found.field(field), in which a struct that is null may have fields that are not.
    return pc.struct_field(found, field) if field else found
