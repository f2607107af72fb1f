"""What operators have asked for, until all workers do it; see core/administration.py."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from convserve_bundle.contract import LABELS_FILE
from convserve_server.core.administration import Done, VersionState, VersionStatus
from convserve_server.core.errors import (
    Draining,
    NotExplicit,
    NotFound,
    NotReady,
    ServeError,
    VersionNotServed,
    VersionRefused,
    listed,
    quoted,
)
from convserve_server.core.tables import Bundle
from convserve_server.process.control_plane import ControlPlane

#: Beyond what loading may take in each worker, until an operation ends in any case, s.
_MARGIN_S = 30.0


@dataclass(eq=False)
class _Operation:
    """An operation that has begun.

    Attributes:
        outcome: Returns True when it is done, False while it may yet be; or the error that ended
            it.
        done: Hears how it ended.
        until: When it ends in any case.
    """

    outcome: Callable[[], bool | ServeError]
    done: Done
    until: float


class Operations:
    """Does what operators ask, by a control plane. It has the plane's thread, so no method waits.

    Args:
        plane: That decides.
        load_timeout_s: Longest time to load a version in one worker.
        clock: That the plane has its times from.
    """

    def __init__(
        self,
        plane: ControlPlane,
        load_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plane = plane
        self._clock = clock
        self.load_timeout_s = load_timeout_s
        self._operations: list[_Operation] = []
        plane.after = self._check

    def load(self, name: str, version: int | None, done: Done) -> None:
        """See Administration.load."""
        plane, now = self._plane, self._clock()
        wishes = plane.wishes
        try:
            self._check_explicit(name)
            number = self._in_folder(name, version)
        except ServeError as error:
            done(error)
            return
        asked = wishes.asked.setdefault(name, set())
        asked.add(number)
        plane.idle.wake(name, now)

        def outcome() -> bool | ServeError:
            if number in plane.table.versions(name):
                return True
            if reason := wishes.reason(name, number):
                asked.discard(number)
                return VersionRefused(f"{name}/{number} cannot be served: {reason}")
            if number not in asked:
                return VersionNotServed(f"{name}/{number} was unloaded while it was being loaded")
            if number not in wishes.files(name):
                asked.discard(number)
                return NotFound("version", f"{name}/{number}", f"{name}/{number} was removed")
            return False

        self._begin(outcome, done, now)

    def unload(self, name: str, version: int | None, done: Done) -> None:
        """See Administration.unload."""
        plane, now = self._plane, self._clock()
        served = plane.table.versions(name)
        asked = plane.wishes.asked.get(name, set())
        try:
            self._check_explicit(name)
            numbers = {*served, *asked} if version is None else {version} & {*served, *asked}
            if not numbers:
                raise _not_found(name, version, "served", served)
        except ServeError as error:
            done(error)
            return
        asked -= numbers

        def outcome() -> bool | ServeError:
            if numbers & asked:
                return VersionNotServed(f"{name} was loaded again while it was being unloaded")
            return not numbers & plane.table.versions(name).keys()

        self._begin(outcome, done, now)

    def set_label(self, name: str, label: str, version: int | None, done: Done) -> None:
        """See Administration.set_label."""
        plane, now = self._plane, self._clock()
        served = plane.table.callable_versions(name)
        if not served:
            done(_not_found(name, None, "served", served))
            return
        if version is not None and version not in served:
            done(_not_served(name, label, version, served))
            return
        if plane.wishes.policy(name).rollout == "label":
            done(
                NotExplicit(
                    f"models.{name}.rollout: expected newest, got label: its labels are those of "
                    f"{name}/{LABELS_FILE}, where `convserve label` moves them"
                )
            )
            return
        labels = plane.wishes.labels.of(name)
        if version is None:
            labels.pop(label, None)
        else:
            labels[label] = version

        def outcome() -> bool | ServeError:
            if labels.get(label) != version or plane.wishes.labels.of(name) is not labels:
                return VersionNotServed(f"label {quoted(label)} was moved again meanwhile")
            there = plane.table.callable_versions(name)
            if version is not None and version not in there:
                return _not_served(name, label, version, there)
            return plane.table.labels(name).get(label) == version

        self._begin(outcome, done, now)

    def statuses(self, done: Callable[[list[VersionStatus]], None]) -> None:
        """See Administration.statuses."""
        names = {model.name for model in self._plane.table.models}
        if self._plane.wishes.scan is not None:
            names |= self._plane.wishes.scan.files.keys()
        names |= {bundle.name for bundle in self._retiring()}
        done([status for name in sorted(names) for status in self._statuses_of(name)])

    def close(self) -> None:
        """Ends all operations: the server stops."""
        operations, self._operations = self._operations, []
        for operation in operations:
            operation.done(Draining("the server is stopping"))

    def _begin(self, outcome: Callable[[], bool | ServeError], done: Done, now: float) -> None:
        workers = max(1, len(self._plane.members))
        until = now + self.load_timeout_s * (workers + 1) + _MARGIN_S
        self._operations.append(_Operation(outcome, done, until))
        self._plane.advance(now)

    def _check(self, now: float) -> None:
        """Ends the operations that are over."""
        for operation in list(self._operations):
            outcome = operation.outcome()
            if outcome is False and now < operation.until:
                continue
            self._operations.remove(operation)
            if outcome is True:
                operation.done(None)
            elif outcome is False:
                operation.done(
                    NotReady("not done within the time limit; the server goes on with it")
                )
            else:
                operation.done(outcome)

    def _check_explicit(self, name: str) -> None:
        """Refuses to load or unload a model that the folder decides about."""
        control = self._plane.wishes.policy(name).control
        if control != "explicit":
            raise NotExplicit(f"models.{name}.control: expected explicit, got {control}")

    def _in_folder(self, name: str, version: int | None) -> int:
        """Returns a version that is in the folder and can be served, as far as is known."""
        files = self._plane.wishes.files(name)
        if not files or (version is not None and version not in files):
            raise _not_found(name, version, "in the folder", files)
        number = max(files) if version is None else version
        if reason := self._plane.wishes.reason(name, number):
            raise VersionRefused(f"{name}/{number} cannot be served: {reason}")
        return number

    def _retiring(self) -> set[Bundle]:
        return {one for member in self._plane.members.values() for one in member.retiring}

    def _statuses_of(self, name: str) -> Iterator[VersionStatus]:
        table, wishes = self._plane.table, self._plane.wishes
        served = table.versions(name)
        retiring = {bundle.version for bundle in self._retiring() if bundle.name == name}
        idle = {bundle.version for bundle in self._plane.idle.bundles() if bundle.name == name}
        there = {*served, *wishes.files(name), *retiring}
        waiting = wishes.labels.waiting(name, table.callable_versions(name))
        for number in sorted({*there, *waiting}, reverse=True):
            labels = tuple(sorted(k for k, v in table.labels(name).items() if v == number))
            default = number == table.default(name)
            refusal = wishes.reason(name, number) or ""
            reason = "; ".join(filter(None, (_waiting(waiting.get(number, ())), refusal)))
            if number in served:
                yield VersionStatus(name, number, VersionState.SERVED, "", labels, default)
            elif number in idle:
                yield VersionStatus(name, number, VersionState.IDLE, "", labels, default)
            elif number not in there:
                yield VersionStatus(name, number, VersionState.ABSENT, reason)
            elif refusal:
                yield VersionStatus(name, number, VersionState.REFUSED, reason)
            elif self._plane.wants(name, number):
                yield VersionStatus(name, number, VersionState.LOADING, reason)
            elif number in retiring:
                yield VersionStatus(name, number, VersionState.RETIRING, reason)
            else:
                yield VersionStatus(name, number, VersionState.FOUND, reason)


def _waiting(labels: Sequence[str]) -> str:
    """Returns which labels wait for a version, for people."""
    if not labels:
        return ""
    return (
        f"label {labels[0]} waits for it"
        if len(labels) == 1
        else (f"labels {listed(labels)} wait for it")
    )


def _not_found(name: str, version: int | None, where: str, there: Collection[int]) -> NotFound:
    numbers = listed([str(number) for number in sorted(there)]) if there else "none"
    if version is None:
        return NotFound("model", name, f"no version of model {quoted(name)} is {where}")
    return NotFound(
        "version", f"{name}/{version}", f"{name}/{version} is not {where}; there: {numbers}"
    )


def _not_served(name: str, label: str, version: int, served: Collection[int]) -> VersionNotServed:
    numbers = listed([str(number) for number in sorted(served)])
    return VersionNotServed(
        f"label {quoted(label)}: expected a version of {name} that is served ({numbers}), got "
        f"{version}"
    )
