"""The messages between a worker and its supervisor: a small type for each event.

They go over a stream socket that both have from the start of the worker, one JSON object a line.
The first line is the worker's spec; see worker_spec.py.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from convserve_server.core.permits import Bundle, Verdict

#: Exit status of a worker that would fail again in the same way (EX_CONFIG of sysexits.h).
EXIT_CONFIG = 78

#: Longest reason in a message, characters.
MAX_REASON_CHARACTERS = 2000


# From a worker.


@dataclass(frozen=True)
class Alive:
    """The worker runs; sent several times in each heartbeat_s."""


@dataclass(frozen=True)
class AsksToLoad:
    """The worker wants to load a bundle; answered by a Verdict."""

    bundle: Bundle


@dataclass(frozen=True)
class Loaded:
    """The bundle that the worker was allowed to load is loaded and warm."""

    bundle: Bundle


@dataclass(frozen=True)
class Failed:
    """The bundle that the worker was allowed to load cannot be served."""

    bundle: Bundle
    reason: str


@dataclass(frozen=True)
class Serves:
    """All bundles that the worker has loaded now."""

    bundles: tuple[Bundle, ...]


@dataclass(frozen=True)
class Problem:
    """An entry of the models folder is not served; empty if it is no longer a problem."""

    entry: str
    problem: str


@dataclass(frozen=True)
class AsksToListen:
    """The worker has loaded what it can before it accepts calls; answered by MayListen."""


@dataclass(frozen=True)
class Ready:
    """The worker accepts calls."""


@dataclass(frozen=True)
class CannotStart:
    """The worker ends, for a reason that concerns no bundle."""

    reason: str


# From the supervisor.


@dataclass(frozen=True)
class MayListen:
    """Whether the worker may accept calls: if it lacks no model that the others serve."""

    missing: tuple[str, ...]


@dataclass(frozen=True)
class Changed:
    """Another Verdict or MayListen would be given now."""


Message = (
    Alive
    | AsksToLoad
    | Loaded
    | Failed
    | Serves
    | Problem
    | AsksToListen
    | Ready
    | CannotStart
    | Verdict
    | MayListen
    | Changed
)

_TYPES: dict[str, type[Any]] = {type_.__name__: type_ for type_ in Message.__args__}


def encode(message: Message) -> bytes:
    """Returns a message as one line."""
    return json.dumps({type(message).__name__: dataclasses.asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Returns the message of a line.

    Raises:
        ValueError: It is not a message.
    """
    try:
        ((kind, fields),) = json.loads(line).items()
        if "bundle" in fields:
            fields["bundle"] = Bundle(**fields["bundle"])
        if "bundles" in fields:
            fields["bundles"] = tuple(Bundle(**bundle) for bundle in fields["bundles"])
        if "missing" in fields:
            fields["missing"] = tuple(fields["missing"])
        message: Message = _TYPES[kind](**fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"message: expected one of {', '.join(_TYPES)}, got {line!r}") from error
    return message


def one_line(reason: object) -> str:
    """Returns a reason on one line, cut to what a message may hold."""
    return " ".join(str(reason).split())[:MAX_REASON_CHARACTERS]
