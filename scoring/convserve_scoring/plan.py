"""The plan of a scoring: what all workers have in common, fixed before the first image is scored.

It is a file of the target folder. Nothing that changes an answer is an option of a worker.
"""

import msgspec

from convserve_scoring.errors import InputError
from convserve_scoring.folders import Folder

#: Of the target folder.
PLAN_FILE = "plan.json"
#: Folders of it: shards that were packed, and the rows of every shard.
SHARDS, ROWS = "shards", "rows"

#: Layout of the plan.
FORMAT = 1

#: How often a shard is begun before it counts as failed.
MAX_ATTEMPTS = 3


class Shard(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Parquet file of images.

    Attributes:
        name: its path below the source, or below the folder of packed shards; that of its rows.
        images: in it.
        packed: whether it was packed.
    """

    name: str
    images: int
    packed: bool = False


class PlannedModel(msgspec.Struct, frozen=True):
    """The version of a model that answers.

    Attributes:
        name: of the model.
        version: of the model.
        sha256: of its files, hexadecimal; see held_model.digest_of.
        labels: of its classes, in the order of the probabilities.
        external: files of external data, by their location.
        thresholds: where images have several labels, in their order; otherwise empty.
    """

    name: str
    version: int
    sha256: str
    labels: tuple[str, ...]
    external: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """What is scored, and how.

    Attributes:
        format: layout of the plan.
        model: that answers; its files are in the target folder.
        source: path or URL of the folder with the shards that were not packed.
        path_column: of those, names the images.
        bytes_column: of those, has the files.
        device: auto, cpu or cuda.
        batch: images that are run together.
        max_pixels: most pixels of a file by its header.
        max_decoder_bytes: most memory that decoding a file may take, by its header.
        max_attempts: how often a shard is begun before it counts as failed.
        shards: all of them, each name once.
        hang_s: a process that is at one block of images for longer ends itself, s; 0: never.
    """

    format: int
    model: PlannedModel
    source: str
    path_column: str
    bytes_column: str
    device: str
    batch: int
    max_pixels: int
    max_decoder_bytes: int
    max_attempts: int
    shards: tuple[Shard, ...]
    hang_s: float = 600.0

    @property
    def images(self) -> int:
        """In all shards."""
        return sum(shard.images for shard in self.shards)


def rows_file(shard: str) -> str:
    """Returns the name of the file with the rows of a shard, in the target folder."""
    return f"{ROWS}/{shard}"


def write_plan(target: Folder, plan: Plan) -> None:
    """Writes a plan.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be written.
    """
    target.write(PLAN_FILE, msgspec.json.encode(plan) + b"\n", new=True)


def read_plan(target: Folder) -> Plan:
    """Returns the plan in a target folder.

    Raises:
        InputError: there is none, or it is not one that this version can follow.
        OSError: it cannot be read.
    """
    try:
        content = target.read(PLAN_FILE)
    except FileNotFoundError as error:
        raise InputError(
            f"target: expected a folder with {PLAN_FILE}, got {target.url}; "
            "make one with: convserve-score plan"
        ) from error
    try:
        plan = msgspec.json.decode(content, type=Plan)
    except msgspec.MsgspecError as error:
        raise InputError(f"{target.url}/{PLAN_FILE}: expected a plan, got: {error}") from error
    if plan.format != FORMAT:
        raise InputError(
            f"{target.url}/{PLAN_FILE}: format: expected {FORMAT}, got {plan.format}; it was made "
            "by another release"
        )
    return plan
