"""Which version each label of a model names: by the settings and operators, or by a file.

With the rollout "label" that is the file of labels beside the versions. A label that moves there to
a version which this server cannot serve yet stays where it is until it can: callers notice nothing.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from convserve_bundle.contract import LABELS_FILE
from convserve_bundle.labels_file import VersionLabels
from convserve_server.core.policies import ModelPolicy
from convserve_server.core.tables import IdleModel, ServedModel, Table

log = logging.getLogger(__name__)

Model = TypeVar("Model", ServedModel, IdleModel)


class Labels:
    """The labels of all models. Not thread-safe.

    Args:
        policy: Of a model, by its name.
    """

    def __init__(self, policy: Callable[[str], ModelPolicy]) -> None:
        self._policy = policy
        self._moved: dict[str, dict[str, int]] = {}
        self._in_files: Mapping[str, VersionLabels] = {}
        # What was logged: labels of versions that are not served, with the reason; and models of
        # which the file of labels does not count.
        self._without_effect: dict[str, dict[str, tuple[int, str]]] = {}
        self._not_read: set[str] = set()

    def on_files(self, labels: Mapping[str, VersionLabels]) -> None:
        """Notes what the files of labels say, by the name of the model."""
        self._in_files = labels
        unused = {name for name in labels if self._policy(name).rollout != "label"}
        for name in sorted(unused - self._not_read):
            log.warning("%s/%s does not count: rollout is newest", name, LABELS_FILE)
        self._not_read = unused

    def on_policies(self, policy: Callable[[str], ModelPolicy]) -> None:
        """Notes that the operator has changed policies; labels are as these say if they do."""
        for name in list(self._moved):
            if policy(name).labels != self._policy(name).labels:
                del self._moved[name]
        self._policy = policy

    def of(self, name: str) -> dict[str, int]:
        """Returns the version that each label of a model names, also if it is not served."""
        if self._policy(name).rollout == "label":
            return dict(self._in_file(name).labels)
        if name not in self._moved:
            self._moved[name] = dict(self._policy(name).labels)
        return self._moved[name]

    def needed(self, name: str, table: Table) -> frozenset[int]:
        """Returns the versions of a model that are served for their labels alone.

        Args:
            name: Of the model.
            table: That is served. What has a label there keeps it until its successor is served.
        """
        if self._policy(name).rollout != "label":
            return frozenset()
        return self._in_file(name).versions | frozenset(table.labels(name).values())

    def labelled(self, model: Model, table: Table, awaited: Collection[int] = frozenset()) -> Model:
        """Returns a model of the next table with its labels.

        Args:
            model: Without them.
            table: That is served.
            awaited: Versions that are being loaded.
        """
        policy = self._policy(model.name)
        there = {one.version for one in model.versions}
        now, before = table.labels(model.name), self._in_file(model.name).previous
        labels = {}
        for label, version in sorted(self.of(model.name).items()):
            choices: list[int | None] = [version]
            if policy.rollout == "label":
                choices += [now.get(label), None if version in awaited else before.get(label)]
            found = next((one for one in choices if one in there), None)
            if found is not None:
                labels[label] = found
        return replace(model, labels=labels, default_label=policy.default_label)

    def waiting(self, name: str, served: Collection[int]) -> Mapping[int, tuple[str, ...]]:
        """Returns the labels in the file of a model whose versions are not served, by version."""
        if self._policy(name).rollout != "label":
            return {}
        found: dict[int, tuple[str, ...]] = {}
        for label, version in sorted(self.of(name).items()):
            if version not in served:
                found[version] = (*found.get(version, ()), label)
        return found

    def name_without_effect(
        self, model: ServedModel, awaited: Collection[int], why: Callable[[int], str]
    ) -> None:
        """Logs, once, the labels of versions that are not served.

        Args:
            model: Of the next table.
            awaited: Versions that are being loaded.
            why: Returns why a version is not served.
        """
        before = self._without_effect.get(model.name, {})
        now = self._without_effect[model.name] = {}
        there = {one.version for one in model.versions}
        for label, version in self.of(model.name).items():
            if version in there:
                continue
            reason = "is being loaded" if version in awaited else why(version)
            now[label] = (version, reason)
            if before.get(label) == now[label]:
                continue
            if not model.default_label:
                log.warning(
                    "label %s of %s has no effect: version %d is not served",
                    label, model.name, version,
                )  # fmt: skip
                continue
            kept = model.labels.get(label)
            log.log(
                logging.INFO if version in awaited else logging.WARNING,
                "label %s of %s waits for version %d, which %s; until then %s has it",
                label, model.name, version, reason,
                "none" if kept is None else f"version {kept}",
            )  # fmt: skip

    def _in_file(self, name: str) -> VersionLabels:
        return self._in_files.get(name, VersionLabels())


def log_moves(before: Table, after: Table) -> None:
    """Logs which labels have moved from one table to the next, where calls are served by them."""
    for model in after.models:
        old = before.labels(model.name)
        for label, version in model.labels.items():
            if model.default_label and old.get(label) != version:
                log.info("label %s of %s names version %d", label, model.name, version)
