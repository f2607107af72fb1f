"""Shards and their rows: Parquet files of images, and of what a model makes of them."""

import io
import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from convserve_scoring.folders import Folder
from convserve_scoring.plan import SHARDS, Plan, PlannedModel, Shard
from convserve_scoring.scorer import Row

#: Columns of a packed shard; `fault` says why a file has no bytes.
PATH, BYTES, FAULT = "path", "bytes", "fault"
#: Bytes that are read ahead of a column: a row group is never in memory as a whole.
_BUFFER_BYTES = 2**20

#: Of the file of rows.
ROWS_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("probabilities", pa.list_(pa.float32())),
        ("error", pa.string()),
        ("model", pa.string()),
        ("version", pa.int64()),
        ("sha256", pa.string()),
    ]
)
#: One more where images have several labels.
LABELS_FIELD = pa.field("labels", pa.list_(pa.string()))
#: Columns in which one value is repeated.
_REPEATED = ["label", "error", "model", "sha256"]

_PACKED_SCHEMA = pa.schema([(PATH, pa.string()), (BYTES, pa.binary()), (FAULT, pa.string())])

#: What pyarrow raises for a file that is not valid Parquet, or has another schema.
SHARD_ERRORS = (OSError, pa.ArrowException)


class Image(NamedTuple):
    """A row of a shard.

    Attributes:
        path: names the image.
        content: of the file; None where it could not be read.
        fault: why not; None where there is nothing to say.
    """

    path: str | None
    content: bytes | None
    fault: str | None = None


class ShardReader:
    """Reads shards of a plan.

    Args:
        plan: that lists them.
        source: folder of those that were not packed.
        target: folder of those that were.
    """

    def __init__(self, plan: Plan, source: Folder, target: Folder) -> None:
        self._plan = plan
        self._source = source
        self._target = target

    def blocks(self, shard: Shard, images: int) -> Iterator[list[Image]]:
        """Yields the images of a shard in its order, so many at a time.

        Raises:
            OSError, pa.ArrowException: it cannot be read.
        """
        columns = self._columns(shard)
        with self._open(shard) as file:
            parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            for batch in parquet.iter_batches(images, columns=columns, use_threads=False):
                found = [batch.column(name).to_pylist() for name in columns[1:]]
                found.insert(0, batch.column(columns[0]).cast(pa.string()).to_pylist())
                yield [Image(*values) for values in zip(*found, strict=True)]

    def paths(self, shard: Shard) -> list[str | None]:
        """Returns the paths of a shard's images, in their order.

        Raises:
            OSError, pa.ArrowException: it cannot be read.
        """
        path = self._columns(shard)[0]
        with self._open(shard) as file:
            table = pq.ParquetFile(file).read(columns=[path], use_threads=False)
        return list(table.column(path).cast(pa.string()).to_pylist())

    def _open(self, shard: Shard) -> BinaryIO:
        if shard.packed:
            return self._target.open(f"{SHARDS}/{shard.name}")
        return self._source.open(shard.name)

    def _columns(self, shard: Shard) -> list[str]:
        if shard.packed:
            return [PATH, BYTES, FAULT]
        return [self._plan.path_column, self._plan.bytes_column]


def rows_content(model: PlannedModel, paths: Sequence[str | None], rows: Sequence[Row]) -> bytes:
    """Returns the content of the file of rows of a shard; equal rows give equal bytes.

    Args:
        model: that gave them.
        paths: of the images.
        rows: of the same images.
    """
    count = len(rows)
    columns = [
        pa.array(paths, pa.string()),
        pa.array([row.label for row in rows], pa.string()),
        pa.array([row.probabilities for row in rows], pa.list_(pa.float32())),
        pa.array([row.error for row in rows], pa.string()),
        pa.array([model.name] * count, pa.string()),
        pa.array([model.version] * count, pa.int64()),
        pa.array([model.sha256] * count, pa.string()),
    ]
    schema, metadata = ROWS_SCHEMA, {"convserve.labels": json.dumps(model.labels)}
    if model.thresholds:
        columns.append(pa.array([row.labels for row in rows], LABELS_FIELD.type))
        schema = schema.append(LABELS_FIELD)
        metadata["convserve.thresholds"] = json.dumps(model.thresholds)
    schema = schema.with_metadata(metadata)
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=schema), buffer, compression="zstd", use_dictionary=_REPEATED
    )
    return buffer.getvalue()


def packed(images: Sequence[Sequence[Image]]) -> bytes:
    """Returns the content of a shard.

    Args:
        images: of it, in row groups.
    """
    buffer = io.BytesIO()
    # Image files are compressed already, and no two are alike.
    writer = pq.ParquetWriter(
        buffer, _PACKED_SCHEMA, compression="none", use_dictionary=False, write_statistics=False
    )
    with writer:
        for group in images:
            columns = [
                pa.array([image.path for image in group], pa.string()),
                pa.array([image.content for image in group], pa.binary()),
                pa.array([image.fault for image in group], pa.string()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=_PACKED_SCHEMA))
    return buffer.getvalue()


class FoundRows(NamedTuple):
    """What a file of rows says, without its answers.

    Attributes:
        paths: in their order.
        models: SHA-256 of those that gave the rows.
        bad: rows with an error.
    """

    paths: list[str | None]
    models: set[str | None]
    bad: int


def read_rows(file: BinaryIO) -> FoundRows:
    """Returns what a file of rows says.

    Args:
        file: open for reading.

    Raises:
        OSError, pa.ArrowException: it is not one.
    """
    columns = ["path", "error", "sha256"]
    table = pq.ParquetFile(file).read(columns=columns, use_threads=False)
    error = table.column("error")
    return FoundRows(
        table.column("path").to_pylist(),
        set(table.column("sha256").unique().to_pylist()),
        len(error) - error.null_count,
    )
