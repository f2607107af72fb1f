"""The files of labels in the models folder, as they change; see convserve_bundle.labels_file.

A file that is damaged, cannot be read or is gone changes nothing: the labels that it had last
hold. A label is removed by a file without it.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from convserve_bundle.errors import BundleError
from convserve_bundle.labels_file import MOST_BYTES, VersionLabels, read_labels

log = logging.getLogger(__name__)


class LabelsFiles:
    """Reads the files of labels, for the thread that scans the folder."""

    def __init__(self) -> None:
        # The content that was read last, what it says, and what was logged, by model.
        self._contents: dict[str, bytes] = {}
        self._labels: dict[str, VersionLabels] = {}
        self._problems: dict[str, str] = {}

    def read(
        self, files: Mapping[str, Path], models: Collection[str]
    ) -> Mapping[str, VersionLabels]:
        """Returns the labels of models, by name; those of files seen before as well.

        Args:
            files: That are there, by the name of the model.
            models: Names of those that have versions.
        """
        for name in self._contents.keys() & set(models) - files.keys():
            self._note(name, "is gone: its labels stay as they were")
        for name, path in files.items():
            try:
                if not path.is_file():
                    raise BundleError("expected a file, got another kind of entry")
                with path.open("rb") as file:
                    content = file.read(MOST_BYTES + 1)
                if content != self._contents.get(name):
                    self._labels[name] = read_labels(content)
                    self._contents[name] = content
            except (BundleError, OSError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                self._note(name, f"cannot be used, its labels stay as they were: {why}")
            else:
                self._problems.pop(name, None)
        return dict(self._labels)

    def _note(self, name: str, problem: str) -> None:
        """Logs what is wrong with the file of a model, once."""
        if self._problems.get(name) != problem:
            log.error("the file of labels of %s %s", name, problem)
        self._problems[name] = problem
