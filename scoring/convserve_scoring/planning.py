"""Makes a plan: lists a source once, and packs what is not in shards yet.

Loose files are packed, and Parquet files of more images than a shard may have. Other Parquet files
are shards already, and are not copied.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from convserve_imaging.file_formats import SUFFIXES
from convserve_scoring import planned_model, shard_files
from convserve_scoring.errors import InputError, ScoringError
from convserve_scoring.folders import Folder, is_within, open_folder
from convserve_scoring.packing import Packer
from convserve_scoring.plan import (
    FORMAT,
    MAX_ATTEMPTS,
    PLAN_FILE,
    ROWS,
    Plan,
    Shard,
    write_plan,
)
from convserve_scoring.scorer import MAX_FILE_BYTES
from convserve_scoring.shard_files import Image
from convserve_scoring.work import load

#: Files of these names are images. One that the model cannot read has a row that says so.
IMAGE_SUFFIXES = tuple(itertools.chain.from_iterable(SUFFIXES.values()))
PARQUET_SUFFIX = ".parquet"

#: Most images of a shard.
MAX_IMAGES = 10_000
#: Files that are read at a time, to bridge the delays of an object store.
_READERS = 16

#: The server's limits of a file, so that the same files are refused.
MAX_PIXELS, MAX_DECODER_BYTES = 2**26, 256 * 2**20

#: Types of columns with paths, and with files.
_TEXT = (pa.string(), pa.large_string(), pa.string_view())
_BINARY = (pa.binary(), pa.large_binary(), pa.binary_view())

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Request:
    """What a plan is asked for.

    Attributes:
        source: path or URL of a folder of images or of Parquet files, or of one such file.
        target: path or URL of the folder for plan and rows.
        model: path or URL of a bundle.
        shard_images: of a shard that is packed.
        path_column: of Parquet files, names the images.
        bytes_column: of Parquet files, has the files.
        device: auto, cpu or cuda.
        batch: images that are run together.
        hang_s: see Plan.
    """

    source: str
    target: str
    model: str
    shard_images: int
    path_column: str
    bytes_column: str
    device: str
    batch: int
    hang_s: float


def make_plan(request: Request, say: Callable[[str], None]) -> Plan:
    """Makes the plan, and all that workers need in the target folder; the plan itself comes last.

    Args:
        request: what is asked for.
        say: called with a line on what is done.

    Raises:
        InputError: the source or the model is not there, or not what it should be.
        ScoringError: the target folder has another plan, or rows.
        BundleError: the model is not a usable bundle.
        OSError: something cannot be read or written.
    """
    source, names = _source(request.source)
    target = open_folder(request.target)
    if is_within(target.url, request.source):
        raise InputError(
            f"target: expected a folder outside the source {source.url}, got {target.url}"
        )
    _check_unused(target)
    model, held = planned_model.find(request.model)
    images = [name for name, _ in names if name.lower().endswith(IMAGE_SUFFIXES)]
    parquet = [name for name, _ in names if name.lower().endswith(PARQUET_SUFFIX)]
    if bool(images) == bool(parquet):
        raise InputError(
            f"source: expected images ({', '.join(IMAGE_SUFFIXES)}) or Parquet files below "
            f"{source.url}, got {'both' if images else 'neither'}"
        )
    if others := len(names) - len(images) - len(parquet):
        say(f"files below {source.url} that are neither images nor Parquet, not scored: {others:,}")
    planned_model.copy(target, model, held)
    plan = Plan(
        format=FORMAT,
        model=model,
        source=source.url,
        path_column=request.path_column,
        bytes_column=request.bytes_column,
        device=request.device,
        batch=request.batch,
        max_pixels=MAX_PIXELS,
        max_decoder_bytes=MAX_DECODER_BYTES,
        max_attempts=MAX_ATTEMPTS,
        hang_s=request.hang_s,
        shards=(),
    )
    scorer = load(target, plan)
    known = msgspec.structs.replace(model, labels=scorer.labels, thresholds=scorer.thresholds)
    plan = msgspec.structs.replace(plan, model=known)
    packer = Packer(target, request.shard_images, say)
    if images:
        shards = packer.pack(_loose(source, images, dict(names)))
    else:
        shards = _found_shards(source, parquet, request, say)
        large = [shard for shard in shards if shard.images > MAX_IMAGES]
        if large:
            say(f"Parquet files of more than {MAX_IMAGES:,} images, packed anew: {len(large):,}")
            reader = shard_files.ShardReader(plan, source, target)
            shards = [shard for shard in shards if shard.images <= MAX_IMAGES]
            shards += packer.pack(
                image for shard in large for block in reader.blocks(shard, 64) for image in block
            )
    packer.remove_others()
    _check_names(shards)
    plan = msgspec.structs.replace(plan, shards=tuple(shards))
    try:
        write_plan(target, plan)
    except FileExistsError as error:
        raise ScoringError(f"{target.url}: another plan was made meanwhile") from error
    return plan


def _source(url: str) -> tuple[Folder, list[tuple[str, int]]]:
    """Returns the folder of a source, and its files with their sizes."""
    if url.lower().endswith((PARQUET_SUFFIX, *IMAGE_SUFFIXES)):
        above, _, name = url.rpartition("/")
        folder = open_folder(above or ".")
        if folder.exists(name):
            return folder, [(name, 0)]
    folder = open_folder(url)
    found = list(folder.files())
    if not found:
        raise InputError(f"source: expected a folder with images or Parquet files, got {url}")
    return folder, found


def _check_unused(target: Folder) -> None:
    if target.exists(PLAN_FILE):
        raise InputError(
            f"target: expected a folder without a plan, got {target.url}; "
            f"go on with: convserve-score run {target.url}"
        )
    if next(target.files(ROWS), None):
        raise InputError(
            f"target: expected a folder without rows, got {target.url} with rows and no plan"
        )


def _check_names(shards: list[Shard]) -> None:
    twice = [name for name, count in Counter(shard.name for shard in shards).items() if count > 1]
    if twice:
        raise InputError(
            f"source: expected no Parquet file with the name of a packed one, got {twice[0]}"
        )


def _loose(source: Folder, names: list[str], sizes: dict[str, int]) -> Iterator[Image]:
    """Yields loose files; one that may not be read, or is too large, has its fault instead."""

    def read(name: str) -> Image:
        path = name.encode(errors="surrogateescape").decode(errors="replace")
        if sizes[name] > MAX_FILE_BYTES:
            return Image(
                path, None, f"the file: expected at most {MAX_FILE_BYTES:,} bytes, got more"
            )
        try:
            return Image(path, source.read(name))
        except (FileNotFoundError, PermissionError) as error:
            return Image(path, None, f"the file cannot be read: {error.strerror or error}")

    return _mapped(read, names)


def _found_shards(
    source: Folder, names: list[str], request: Request, say: Callable[[str], None]
) -> list[Shard]:
    """Returns the shards that are there, checked by their schema; empty files are none."""
    found = list(_mapped(partial(_shard_of, source, request=request), names))
    empty = sum(not shard.images for shard in found)
    if empty:
        say(f"Parquet files without images, not scored: {empty:,}")
    return [shard for shard in found if shard.images]


def _shard_of(source: Folder, name: str, request: Request) -> Shard:
    where = f"{source.url}/{name}"
    try:
        with source.open(name) as file:
            parquet = pq.ParquetFile(file)
            schema, images = parquet.schema_arrow, parquet.metadata.num_rows
    except pa.ArrowException as error:
        raise InputError(f"{where}: expected a Parquet file, got: {error}") from error
    for column, kinds in ((request.path_column, _TEXT), (request.bytes_column, _BINARY)):
        if column not in schema.names:
            raise InputError(
                f"{where}: expected a column {column!r}, got {', '.join(schema.names)}; "
                "--path-column and --bytes-column name others"
            )
        if schema.field(column).type not in kinds:
            raise InputError(
                f"{where}: {column}: expected {kinds[0]}, got {schema.field(column).type}"
            )
    return Shard(name, images)


def _mapped(function: Callable[[T], R], values: Iterable[T]) -> Iterator[R]:
    """Yields what a function makes of values, in their order, a few at a time on threads."""
    values = iter(values)
    with ThreadPoolExecutor(_READERS) as pool:
        while some := list(islice(values, _READERS)):
            yield from pool.map(function, some)
