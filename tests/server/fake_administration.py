"""What an operator may ask, answered by the test: on the caller's thread, or later."""

from collections.abc import Callable
from dataclasses import dataclass, field

from convserve_server.core.administration import Done, VersionStatus
from convserve_server.core.errors import ServeError


@dataclass
class FakeAdministration:
    """See Administration.

    Attributes:
        asked: What was asked for, in order: the method and its arguments.
        error: The answer to what follows.
        versions: The answer to a listing.
        held: Whether answers wait for release().
    """

    asked: list[tuple[object, ...]] = field(default_factory=list)
    error: ServeError | None = None
    versions: list[VersionStatus] = field(default_factory=list)
    held: bool = False
    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def load(self, name: str, version: int | None, done: Done) -> None:
        self._answer(done, "load", name, version)

    def unload(self, name: str, version: int | None, done: Done) -> None:
        self._answer(done, "unload", name, version)

    def set_label(self, name: str, label: str, version: int | None, done: Done) -> None:
        self._answer(done, "set_label", name, label, version)

    def statuses(self, done: Callable[[list[VersionStatus]], None]) -> None:
        self.asked.append(("statuses",))
        done(self.versions)

    def release(self) -> None:
        """Answers all that waits."""
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer()

    def _answer(self, done: Done, *asked: object) -> None:
        self.asked.append(asked)
        error = self.error
        if self.held:
            self._waiting.append(lambda: done(error))
        else:
            done(error)
