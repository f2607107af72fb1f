"""Which versions should be served: by the models folder, the operator's policies and requests."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from convserve_server.core.policies import ModelPolicy
from convserve_server.core.tables import Bundle, Refusal, ServedModel, Table
from convserve_server.process.labels import Labels
from convserve_server.process.refusals import Refusals
from convserve_server.process.scan import Scan


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
        #: Of versions.
        self.labels = Labels(policy)

    def on_scan(self, scan: Scan) -> None:
        """Notes what is in the folder."""
        if self.scan is None:
            self._first = scan.files
        self.scan = scan
        self.labels.on_files(scan.labels)

    def on_policies(self, policy: Callable[[str], ModelPolicy]) -> None:
        """Notes that the operator has changed policies."""
        self.labels.on_policies(policy)
        self._policy = policy

    def policy(self, name: str) -> ModelPolicy:
        """Returns what the operator wants of a model."""
        return self._policy(name)

    def all(self, table: Table) -> dict[str, Wish]:
        """Returns what should be served of each model, given what is."""
        names = {model.name for model in table.models}
        if self.scan is not None:
            names |= self.scan.files.keys()
        return {name: self._of(name, table) for name in sorted(names)}

    def choose(self, name: str, usable: Collection[int], table: Table) -> tuple[int, ...]:
        """Returns which of the versions of a model that can be served should be, newest first.

        Args:
            name: Of the model.
            usable: Its versions that can be served.
            table: That is served.
        """
        policy = self._policy(name)
        if policy.control == "explicit":
            usable = self.asked.get(name, set()) & set(usable)
            return tuple(sorted(usable, reverse=True))
        return policy.select(usable, self.labels.needed(name, table))

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
            chosen = self._served(name, wish, table, prepared)
            awaited = {version for version in self.files(name) if self._awaits(wish, name, version)}
            awaited -= chosen.keys()
            if chosen:
                newest_first = tuple(chosen[version] for version in sorted(chosen, reverse=True))
                model = self.labels.labelled(ServedModel(name, newest_first), table, awaited)
            if not chosen or self._cannot_begin(model, table, awaited):
                if wish.unread or wish.bundles:
                    loading.append(name)
                continue
            models.append(model)
            if model.default_label or chosen.keys() == wish.bundles.keys() and not wish.unread:
                why = partial(self._why_not_served, name)
                self.labels.name_without_effect(model, awaited, why)
        following = Table(0, tuple(models), (), tuple(loading))
        return replace(following, refused=self.refused(following))

    def _awaits(self, wish: Wish, name: str, version: int) -> bool:
        return version in wish.bundles or self.files(name)[version] in wish.unread

    def _cannot_begin(self, model: ServedModel, table: Table, awaited: Collection[int]) -> bool:
        """Returns whether a model is not to be served yet.

        The version for calls that ask for none is being loaded, and so far the model is not served
        at all: until then its callers are to try again.
        """
        if model.default is not None or table.versions(model.name):
            return False
        return self.labels.of(model.name).get(model.default_label) in awaited

    def _why_not_served(self, name: str, version: int) -> str:
        if version not in self.files(name):
            return "is not in the models folder"
        reason = self.reason(name, version)
        return f"cannot be served: {reason}" if reason else "is not served"

    def _served(
        self, name: str, wish: Wish, table: Table, prepared: Collection[Bundle]
    ) -> Mapping[int, Bundle]:
        """Returns the versions of a model that the next table has."""
        served = table.versions(name)
        ready = {version: one for version, one in wish.bundles.items() if one in prepared}
        if not wish.unread and len(ready) == len(wish.bundles):
            return ready
        # What is replaced serves until its successor can.
        there = {v: one for v, one in {**served, **wish.bundles}.items() if one in prepared}
        chosen = self.choose(name, there, table)
        if not chosen and self._policy(name).control != "explicit":
            chosen = tuple(version for version in served if version in there)
        return {version: there[version] for version in chosen}

    def _of(self, name: str, table: Table) -> Wish:
        served, there = table.versions(name), self.files(name)
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
        chosen = {version: usable[version] for version in self.choose(name, usable, table)}
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
