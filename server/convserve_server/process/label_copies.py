"""Copies of the files of labels on object storage, beside the copies of the versions."""

import logging
from pathlib import Path

from convserve_bundle.contract import LABELS_FILE, is_name
from convserve_bundle.errors import BundleError
from convserve_bundle.labels_file import read_labels
from convserve_host import atomic_file
from convserve_store import objects
from convserve_store.bundles import BundleStore, StoreListing

log = logging.getLogger(__name__)


class LabelCopies:
    """The files of labels in a folder of copies.

    One that is damaged is not copied, and one that is gone stays: a label is removed by a file
    without it.

    Args:
        folder: of the copies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Of what was copied, or is damaged, by the name of the model.
        self._tags: dict[str, str] = {}

    def update(self, store: BundleStore, listing: StoreListing) -> None:
        """Copies what has changed.

        Args:
            store: that has them.
            listing: of the store.

        Raises:
            StoreError: The store refuses or cannot be reached.
            OSError: The disk is full, or another error of the file system.
        """
        for key, (_, tag) in listing.objects.items():
            name, _, file = key.partition("/")
            if file != LABELS_FILE or not is_name(name) or self._tags.get(name) == tag:
                continue
            stored = objects.read(store.where.child(name, LABELS_FILE))
            if stored is None:
                continue
            try:
                read_labels(stored.content)
            except BundleError as error:
                log.error("%s is not copied, its labels stay as they were: %s", key, error)
            else:
                self._write(name, stored.content)
            self._tags[name] = stored.tag

    def versions(self, name: str) -> frozenset[int]:
        """Returns the versions that labels of a model name, or named before.

        Raises:
            OSError: The file system does not let it be read.
        """
        try:
            return read_labels(self._path(name).read_bytes()).versions
        except (FileNotFoundError, BundleError):
            # What is damaged here, the server names when it looks at the copies.
            return frozenset()

    def _write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file.replaced(path) as temporary:
            temporary.write_bytes(content)

    def _path(self, name: str) -> Path:
        return self._folder / name / LABELS_FILE
