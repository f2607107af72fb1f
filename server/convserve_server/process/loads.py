"""How loading went of each model version, for those who watch the server."""

from dataclasses import dataclass

from convserve_server.core.tables import Bundle


@dataclass(frozen=True)
class Load:
    """One load by one worker.

    Attributes:
        seconds: That it took.
        memory_bytes: By which the worker has grown; 0 if that is not known.
        provider: Name of the execution provider.
    """

    seconds: float
    memory_bytes: int
    provider: str


class Loads:
    """The last load of each version. Not thread-safe."""

    def __init__(self) -> None:
        self._loads: dict[tuple[str, int], Load] = {}
        #: Of the version that was loaded last; empty if none was.
        self.provider = ""

    def note(self, bundle: Bundle, load: Load) -> None:
        """Notes that a worker has loaded a version."""
        self._loads[bundle.name, bundle.version] = load
        self.provider = load.provider

    def get(self, name: str, version: int) -> Load | None:
        """Returns the last load of a version; None if no worker has loaded it."""
        return self._loads.get((name, version))
