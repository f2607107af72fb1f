"""What an operator may ask of a server that runs: load, unload, label, list."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from convserve_server.core.errors import ServeError


class VersionState(Enum):
    """How far a version of a model has come."""

    #: In the folder; nobody asks for it to be served.
    FOUND = "found"
    #: Workers load it.
    LOADING = "loading"
    #: All workers answer with it.
    SERVED = "served"
    #: To be loaded again at the next call, since nobody has asked for it for long.
    IDLE = "idle"
    #: It finishes what it has accepted.
    RETIRING = "retiring"
    #: It cannot be served; the reason says why.
    REFUSED = "refused"
    #: Not in the folder; a label waits for it.
    ABSENT = "absent"


@dataclass(frozen=True)
class VersionStatus:
    """A version of a model, and how far it has come.

    Attributes:
        name: of the model.
        version: of the model.
        state: of the version.
        reason: for people, why it is in this state; may be empty.
        labels: that it has.
        default: whether it answers calls that ask for no version.
    """

    name: str
    version: int
    state: VersionState
    reason: str = ""
    labels: tuple[str, ...] = ()
    default: bool = False


#: Called once, with the error, or None when every worker does what was asked for.
Done = Callable[[ServeError | None], None]


class Administration(Protocol):
    """What changes and lists the models of all workers; methods may be called from any thread."""

    def load(self, name: str, version: int | None, done: Done) -> None:
        """Serves a version of a model, or the newest that is in the folder."""

    def unload(self, name: str, version: int | None, done: Done) -> None:
        """Serves a version of a model, or all of its versions, no longer."""

    def set_label(self, name: str, label: str, version: int | None, done: Done) -> None:
        """Moves a label to a version that is served; None removes the label."""

    def statuses(self, done: Callable[[list[VersionStatus]], None]) -> None:
        """Lists all versions that are in the folder or served, by name, then newest first."""
