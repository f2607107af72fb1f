"""What a supervisor knows of the server, for the page of metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelState:
    """A version of a model.

    Attributes:
        name: of the model.
        version: of the model.
        state: value of a VersionState.
        load_s: that a worker took to load it, the last time; None if none has.
        memory_bytes: by which that worker grew; None if that is not known.
    """

    name: str
    version: int
    state: str
    load_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class StoreState:
    """How the object storage of models is.

    Attributes:
        answers: whether it has answered the last time that it was asked.
        reached: when it last answered, s since 1970; 0: never yet.
    """

    answers: bool
    reached: float


@dataclass(frozen=True)
class ServerState:
    """How the server is now.

    Attributes:
        serving: workers that accept calls.
        starting: workers that do not yet.
        restarts: ends that nobody had asked for, by the number of the worker.
        processes: ids of processes by what they are, such as "worker-1".
        models: all versions that there are.
        provider: name of the execution provider of the model that was loaded last; empty if none.
        store: of the models; None where they are in a folder.
    """

    serving: int = 0
    starting: int = 0
    restarts: Mapping[int, int] = field(default_factory=dict)
    processes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    models: Sequence[ModelState] = ()
    provider: str = ""
    store: StoreState | None = None
