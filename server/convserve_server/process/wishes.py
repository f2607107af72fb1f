"""Which versions should be served: by the models folder, the operator's policies and requests."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from convserve_server.core.policies import ModelPolicy
from convserve_server.core.tables import Bundle, Refusal, ServedModel, Table
from convserve_server.process.refusals import Refusals
from convserve_server.process.scan import Scan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """The versions of a model that should be served.

    Attributes:
        bundles: By version; those of which the file was not read yet are not among them.
        unread: Files that have to be read first.
    """

    bundles: Mapping[int, Bundle]
    unread: frozenset[Path]


class Wishes:
    """What should be served. Not thread-safe.

    Args:
        policy: Of a model, by its name.
        refusals: Files that cannot be served.
    """

    def __init__(self, policy: Callable[[str], ModelPolicy], refusals: Refusals) -> None:
        self._policy = policy
        self._refusals = refusals
        # What the folder had when it was first seen.
        self._first: Mapping[str, Mapping[int, Path]] = {}
        #: The last scan; None before the first.
        self.scan: Scan | None = None
        #: The versions that an operator has asked for, of models that are loaded only then.
        self.asked: dict[str, set[int]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        # Those that were logged, of versions that are not served.
        self._without_effect: dict[str, dict[str, int]] = {}

    def on_scan(self, scan: Scan) -> None:
        """Notes what is in the folder."""
        if self.scan is None:
            self._first = scan.files
        self.scan = scan

    def on_policies(self, policy: Callable[[str], ModelPolicy]) -> None:
        """Notes that the operator has changed policies; labels are as these say if they do."""
        for name in list(self._labels):
            if policy(name).labels != self._policy(name).labels:
                del self._labels[name]
        self._policy = policy

    def policy(self, name: str) -> ModelPolicy:
        """Returns what the operator wants of a model."""
        return self._policy(name)

    def labels(self, name: str) -> dict[str, int]:
        """Returns the version that each label of a model names, also if it is not served."""
        if name not in self._labels:
            self._labels[name] = dict(self._policy(name).labels)
        return self._labels[name]

    def all(self, table: Table) -> dict[str, Wish]:
        """Returns what should be served of each model, given what is."""
        names = {model.name for model in table.models}
        if self.scan is not None:
            names |= self.scan.files.keys()
        return {name: self._of(name, table.versions(name)) for name in sorted(names)}

    def choose(self, name: str, usable: Collection[int]) -> tuple[int, ...]:
        """Returns which of the versions of a model that can be served should be, newest first."""
        policy = self._policy(name)
        if policy.control == "explicit":
            usable = self.asked.get(name, set()) & set(usable)
            return tuple(sorted(usable, reverse=True))
        return policy.select(usable)

    def file(self, bundle: Bundle) -> Path | None:
        """Returns the file of a bundle; None if it is not there, or is another one now."""
        if self.scan is None:
            return None
        path = self.files(bundle.name).get(bundle.version)
        if path is None or path in self.scan.refused:
            return None
        return path if self.scan.digests.get(path) == bundle.digest else None

    def file_bytes(self, bundle: Bundle) -> int:
        """Returns the size of the file of a bundle; 0 if it is not there."""
        path = self.file(bundle)
        return 0 if self.scan is None or path is None else self.scan.sizes.get(path, 0)

    def files(self, name: str) -> Mapping[int, Path]:
        """Returns the versions of a model that are in the folder."""
        return {} if self.scan is None else self.scan.files.get(name, {})

    def reason(self, name: str, version: int) -> str | None:
        """Returns why a version in the folder is refused; None if it is not."""
        path = self.files(name).get(version)
        if path is None or self.scan is None:
            return None
        if path in self.scan.refused:
            return self.scan.refused[path]
        return self._refusals.reason(self.scan.digests.get(path, ""))

    def refused(self, table: Table) -> tuple[Refusal, ...]:
        """Returns what is in the folder, cannot be served, and is not in a table."""
        found = []
        for name in sorted(self.scan.files if self.scan else {}):
            served = table.versions(name)
            for version in sorted(self.files(name), reverse=True):
                reason = self.reason(name, version)
                if reason is not None and version not in served:
                    found.append(Refusal(name, version, reason))
        return tuple(found)

    def table(
        self, wanted: Mapping[str, Wish], table: Table, prepared: Collection[Bundle]
    ) -> Table:
        """Returns the table that comes as near to what is wanted as can be now.

        Args:
            wanted: What should be served; see all().
            table: That is served.
            prepared: What all workers have loaded.
        """
        models, loading = [], []
        for name, wish in wanted.items():
            chosen = self._served(name, wish, table.versions(name), prepared)
            if not wish.unread and chosen.keys() == wish.bundles.keys():
                self._name_labels_without_effect(name, chosen)
            if chosen:
                newest_first = tuple(chosen[version] for version in sorted(chosen, reverse=True))
                labels = sorted(self.labels(name).items())
                kept = {label: version for label, version in labels if version in chosen}
                models.append(ServedModel(name, newest_first, kept))
            elif wish.unread or wish.bundles:
                loading.append(name)
        following = Table(0, tuple(models), (), tuple(loading))
        return replace(following, refused=self.refused(following))

    def _name_labels_without_effect(self, name: str, served: Collection[int]) -> None:
        """Logs, once, the labels of versions that are not served, when nothing is being loaded."""
        before = self._without_effect.get(name, {})
        now = {label: v for label, v in self.labels(name).items() if v not in served}
        for label, version in now.items():
            if before.get(label) != version:
                log.warning(
                    "label %s of %s has no effect: version %d is not served", label, name, version
                )
        self._without_effect[name] = now

    def _served(
        self, name: str, wish: Wish, served: Mapping[int, Bundle], prepared: Collection[Bundle]
    ) -> Mapping[int, Bundle]:
        """Returns the versions of a model that the next table has."""
        ready = {version: one for version, one in wish.bundles.items() if one in prepared}
        if not wish.unread and len(ready) == len(wish.bundles):
            return ready
        # What is replaced serves until its successor can.
        there = {v: one for v, one in {**served, **wish.bundles}.items() if one in prepared}
        chosen = self.choose(name, there)
        if not chosen and self._policy(name).control != "explicit":
            chosen = tuple(version for version in served if version in there)
        return {version: there[version] for version in chosen}

    def _of(self, name: str, served: Mapping[int, Bundle]) -> Wish:
        there = self.files(name)
        control = self._policy(name).control
        usable: dict[int, Bundle | Path] = {}
        for version, path in there.items():
            if control != "none" or version in self._first.get(name, {}):
                one = self._usable(name, version, path, served)
                if one is not None:
                    usable[version] = one
        for version, bundle in served.items():
            # Only what was removed goes, and only where the folder decides.
            if control != "poll" or self.scan is None or not self.scan.knows(name, version):
                usable[version] = bundle
        chosen = {version: usable[version] for version in self.choose(name, usable)}
        return Wish(
            {version: one for version, one in chosen.items() if isinstance(one, Bundle)},
            frozenset(one for one in chosen.values() if isinstance(one, Path)),
        )

    def _usable(
        self, name: str, version: int, path: Path, served: Mapping[int, Bundle]
    ) -> Bundle | Path | None:
        """Returns a version in the folder; its path if it must be read; None if it is of no use."""
        assert self.scan is not None
        digest = self.scan.digests.get(path)
        if bundle := served.get(version):
            if digest not in (None, bundle.digest):
                self._refusals.report_replaced(bundle, digest)
            return bundle
        if digest is None:
            return path if self.scan.knows(name, version) else None
        if path in self.scan.refused or self._refusals.reason(digest) is not None:
            return None
        return Bundle(name, version, digest)
