"""The messages between a supervisor and the processes that it starts: a small type for each event.

They go over a stream socket that both have from the start of the process, one JSON object a line.
The first line to a worker is its spec; see worker_spec.py.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from convserve_server.core.descriptions import Findings
from convserve_server.core.tables import Bundle, Table

#: Exit status of a worker that would fail again in the same way (EX_CONFIG of sysexits.h).
EXIT_CONFIG = 78

#: Longest reason in a message, characters.
MAX_REASON_CHARACTERS = 2000


# From a worker.


@dataclass(frozen=True)
class Alive:
    """The worker runs; sent several times in each heartbeat_s.

    Attributes:
        used: Names of models that calls have asked for since the last one.
    """

    used: tuple[str, ...] = ()


@dataclass(frozen=True)
class Joins:
    """The worker can load models."""


@dataclass(frozen=True)
class Loading:
    """The worker begins to load a bundle that it was to prepare; what follows may be its fault."""

    bundle: Bundle


@dataclass(frozen=True)
class Prepared:
    """A bundle is loaded and warm.

    Attributes:
        bundle: That was to be loaded.
        findings: What was found out by loading it.
    """

    bundle: Bundle
    findings: Findings


@dataclass(frozen=True)
class Failed:
    """A bundle that was to be loaded cannot be served."""

    bundle: Bundle
    reason: str


@dataclass(frozen=True)
class Wanted:
    """A call waits for a model that is idle."""

    name: str


@dataclass(frozen=True)
class Staged:
    """The worker has all of the table with this number, and changes to it when it counts."""

    generation: int


@dataclass(frozen=True)
class Retired:
    """A bundle that was served, or was prepared in vain, is unloaded."""

    bundle: Bundle


@dataclass(frozen=True)
class Ready:
    """The process accepts calls.

    Attributes:
        port: Of a worker behind guards, on which it does; 0 without them.
    """

    port: int = 0


@dataclass(frozen=True)
class CannotStart:
    """The process ends, for a reason that concerns no bundle."""

    reason: str


# To a worker.


@dataclass(frozen=True)
class Prepare:
    """Load a bundle and warm it up; answered by Loading, and then by Prepared or Failed.

    Attributes:
        bundle: To be loaded.
        path: Of its file.
        batch_s: Seconds that its batches take, by their size, if they are known.
    """

    bundle: Bundle
    path: str
    batch_s: Mapping[int, float]


@dataclass(frozen=True)
class Stage:
    """Keep this table until its number counts; answered by Staged."""

    table: Table


@dataclass(frozen=True)
class Commit:
    """The table with this number counts: unload what it no longer has."""

    generation: int


@dataclass(frozen=True)
class Retire:
    """Unload a bundle that was prepared and will be in no table."""

    bundle: Bundle


@dataclass(frozen=True)
class Listen:
    """Accept calls."""


@dataclass(frozen=True)
class WorkerPorts:
    """To a guard: pass clients on to the workers at these ports of this machine alone."""

    ports: tuple[int, ...]


@dataclass(frozen=True)
class Leave:
    """The server is about to stop: health says so from now on, and the worker serves on."""


@dataclass(frozen=True)
class SetLogLevel:
    """Log from this level on."""

    level: str


@dataclass(frozen=True)
class SetAccessLog:
    """Log the calls that this asks for; see the settings access_log and access_log_share."""

    mode: str
    share: float


@dataclass(frozen=True)
class UseKeys:
    """Go by these keys from now on.

    Attributes:
        text: Of the file of keys, which is valid.
    """

    text: str


# Of a process that answers operators, or callers who may do as they.


@dataclass(frozen=True)
class AdminRequest:
    """Asks for what core/administration.py describes.

    Attributes:
        number: Of the request, for its reply.
        action: Method of Administration.
        name: Of the model; empty to list.
        version: Of the model, None where that is allowed.
        label: For set_label.
    """

    number: int
    action: Literal["load", "unload", "set_label", "statuses"]
    name: str = ""
    version: int | None = None
    label: str = ""


@dataclass(frozen=True)
class Status:
    """A version of a model; see VersionStatus."""

    name: str
    version: int
    state: str
    reason: str
    labels: tuple[str, ...]
    default: bool


@dataclass(frozen=True)
class AdminReply:
    """Answers an AdminRequest.

    Attributes:
        number: Of the request.
        error: Name of the class of the error; empty for none.
        subject: That the error is about: of InvalidRequest the field, of NotFound the kind.
        message: Of the error.
        statuses: Of a request to list.
    """

    number: int
    error: str = ""
    subject: str = ""
    message: str = ""
    statuses: tuple[Status, ...] = ()


# Of the process that copies models from object storage, and to it.


@dataclass(frozen=True)
class Mirrored:
    """What the store had was copied, or why it could not be.

    Attributes:
        complete: Whether the copies have been whole once, so that they may be served.
        reached: When the store last answered all that was asked, s since 1970; 0: never yet.
        problem: Why it does not answer now; empty if it does.
    """

    complete: bool
    reached: float
    problem: str = ""


@dataclass(frozen=True)
class InUse:
    """Versions that the copies must not lose while the store has them, as "NAME/VERSION".

    Attributes:
        served: By the workers.
        refused: That cannot be served; older ones are served in their stead.
    """

    served: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class UseSettings:
    """Go by these settings from now on.

    Attributes:
        text: All of them; see worker_spec.encode_settings.
    """

    text: str


Message = (
    Alive
    | Joins
    | Loading
    | Prepared
    | Failed
    | Wanted
    | Staged
    | Retired
    | Ready
    | CannotStart
    | Prepare
    | Stage
    | Commit
    | Retire
    | Listen
    | Leave
    | SetLogLevel
    | WorkerPorts
    | SetAccessLog
    | UseKeys
    | AdminRequest
    | AdminReply
    | Mirrored
    | InUse
    | UseSettings
)

_TYPES: dict[str, type[Any]] = {type_.__name__: type_ for type_ in Message.__args__}


def encode(message: Message) -> bytes:
    """Returns a message as one line."""
    return json.dumps({type(message).__name__: _plain(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Returns the message of a line.

    Raises:
        ValueError: It is not a message.
    """
    try:
        ((kind, values),) = json.loads(line).items()
        message: Message = _typed(_TYPES[kind], values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"message: expected one of {', '.join(_TYPES)}, got {line!r}") from error
    return message


def one_line(reason: object) -> str:
    """Returns a reason on one line, cut to what a message may hold."""
    return " ".join(str(reason).split())[:MAX_REASON_CHARACTERS]


def _plain(value: Any) -> Any:
    """Returns a value of a message as JSON has it."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return dict(value) if isinstance(value, Mapping) else value


def _typed(type_: Any, value: Any) -> Any:
    """Returns a value of JSON as a field of this type has it.

    Raises:
        TypeError, ValueError: It is of another type.
    """
    if is_dataclass(type_):
        hints = get_type_hints(type_)
        return type_(**{name: _typed(hints.get(name), each) for name, each in value.items()})  # type: ignore[operator]
    if type_ is bytes:
        return base64.b64decode(value, validate=True)
    origin, parts = get_origin(type_), get_args(type_)
    if origin is tuple:
        return tuple(_typed(parts[0], each) for each in value)
    if origin is Mapping:
        return {parts[0](key): _typed(parts[1], each) for key, each in value.items()}
    allowed = {type(each) for each in parts} if origin is Literal else set(parts) or {type_}
    if origin is Literal and value not in parts:
        raise ValueError(value)
    if origin in (None, UnionType, Literal) and type(value) not in allowed:
        raise TypeError(value)
    return value
