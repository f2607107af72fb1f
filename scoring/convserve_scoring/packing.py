"""Packs images into shards of the target folder."""

from collections.abc import Callable, Iterable

from convserve_scoring import shard_files
from convserve_scoring.folders import Folder
from convserve_scoring.plan import SHARDS, Shard
from convserve_scoring.shard_files import Image

#: Most bytes of the images of a shard: it is in memory as a whole.
_MAX_BYTES = 256 * 2**20
#: Bytes and images of a row group.
_GROUP_BYTES, _GROUP_IMAGES = 8 * 2**20, 512


class Packer:
    """Packs images into shards of the target folder.

    Args:
        target: the folder.
        shard_images: of a shard; fewer where their files are large.
        say: called with a line on what is done.
    """

    def __init__(self, target: Folder, shard_images: int, say: Callable[[str], None]) -> None:
        self._target = target
        self._shard_images = shard_images
        self._say = say
        self._written: set[str] = set()

    def pack(self, images: Iterable[Image]) -> list[Shard]:
        """Writes images as shards, in their order.

        Raises:
            OSError: they cannot be written.
        """
        shards: list[Shard] = []
        unreadable: list[str] = []
        group: list[Image] = []
        groups: list[list[Image]] = []
        count = size = group_size = 0
        for image in images:
            if image.fault:
                unreadable.append(image.fault)
            group.append(image)
            count += 1
            group_size += len(image.content or b"")
            if group_size >= _GROUP_BYTES or len(group) >= _GROUP_IMAGES:
                groups.append(group)
                size += group_size
                group, group_size = [], 0
            if count == self._shard_images or size >= _MAX_BYTES:
                shards.append(self._write(len(shards), [*groups, group], count))
                group, groups, count, size, group_size = [], [], 0, 0, 0
        if count:
            shards.append(self._write(len(shards), [*groups, group], count))
        if unreadable:
            self._say(
                f"files that become rows with an error: {len(unreadable):,}, as {unreadable[0]}"
            )
        return shards

    def remove_others(self) -> None:
        """Removes shards that a plan which was stopped has left."""
        for name, _ in list(self._target.files(SHARDS)):
            if name not in self._written:
                self._target.remove(name)

    def _write(self, number: int, groups: list[list[Image]], count: int) -> Shard:
        shard = Shard(f"packed-{number:06}.parquet", count, packed=True)
        name = f"{SHARDS}/{shard.name}"
        self._target.write(name, shard_files.packed([group for group in groups if group]))
        self._written.add(name)
        return shard
