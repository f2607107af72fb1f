"""The settings of a client: defined, explained and checked once for both clients."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from convserve.address import DEFAULT_SERVER, validate_server
from convserve.arguments import (
    shown,
    switch_of,
    validate_flag,
    validate_int,
    validate_seconds,
    validate_text,
)
from convserve.caller_key import KEY_FILE_VARIABLE, CallerKey
from convserve.errors import InvalidRequest
from convserve.tls import Tls

SERVER_VARIABLE = "CONVSERVE_SERVER"
MODEL_VARIABLE = "CONVSERVE_MODEL"
RETRIES_VARIABLE = "CONVSERVE_RETRY_UNAVAILABLE"
ADMIN_SOCKET_VARIABLE = "CONVSERVE_ADMIN_SOCKET"
DEFAULT_TIMEOUT_S = 10.0
MAX_IMAGES_PER_CALL = 64
# Below the 4 MiB that gRPC servers accept unless they were given another limit.
MAX_BYTES_PER_CALL = 3 * 2**20
MAX_IN_FLIGHT = 4
MAX_TRIES = 4

Priority: TypeAlias = Literal["interactive", "batch"]
"""Which calls a busy server answers first."""

PRIORITIES: tuple[Priority, ...] = get_args(Priority)
PRIORITY_KEY = "convserve-priority"
"""Of the metadata that carries it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a client works.

    Attributes:
        server: HOST:PORT, or any target of gRPC's name syntax that names a port ("dns:///a:1"), or
            "unix:PATH".
        model: Name of the model for calls that name none; None: the one that fits what is sent.
        timeout_s: Longest wait for an answer, in seconds, above 0.
        wait_for_ready: Wait, within the timeout, for a server that is not there yet, rather than
            fail at once.
        max_images_per_call: What is more is split into several calls.
        max_bytes_per_call: Pixels or files in one call, in bytes; a single image may be more.
        max_in_flight: Calls, or requests of a stream, that are unanswered at one time.
        max_tries: Tries of a call that the server refuses, the first one counted.
        retry_unavailable: Whether a call that ended as UNAVAILABLE is made again.
        priority: Of calls that name none; None: nothing is sent.
        tls: How it speaks TLS; None: it does not.
        key: Sent with each call; None: there is none.
    """

    server: str
    model: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    wait_for_ready: bool = False
    max_images_per_call: int = MAX_IMAGES_PER_CALL
    max_bytes_per_call: int = MAX_BYTES_PER_CALL
    max_in_flight: int = MAX_IN_FLIGHT
    max_tries: int = MAX_TRIES
    retry_unavailable: bool = True
    priority: Priority | None = None
    tls: Tls | None = None
    key: CallerKey | None = None

    def __post_init__(self) -> None:
        """Converts what came, so that a number is one of Python's.

        Raises:
            InvalidRequest: A setting is of another kind, or beyond its bounds.
        """
        validate_server(self.server)
        converted: dict[str, object] = {
            "model": None if self.model is None else validate_text("model", self.model),
            "timeout_s": validate_seconds("timeout", self.timeout_s),
            "wait_for_ready": validate_flag("wait_for_ready", self.wait_for_ready),
            "priority": None if self.priority is None else validate_priority(self.priority),
        }
        for name in ("max_images_per_call", "max_bytes_per_call", "max_in_flight", "max_tries"):
            converted[name] = validate_int(name, getattr(self, name), 1, sys.maxsize)
        for name, value in converted.items():
            object.__setattr__(self, name, value)  # The only way into a frozen dataclass.


def validate_priority(value: object) -> Priority:
    """Returns the name of a priority.

    Raises:
        InvalidRequest: There is none of that name.
    """
    for name in PRIORITIES:
        if value == name:
            return name
    raise InvalidRequest.expected("priority", " or ".join(map(repr, PRIORITIES)), shown(value))


def default_server() -> str:
    """Returns the server for a client that is given none: CONVSERVE_SERVER, or this machine's."""
    return os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER


def default_model() -> str | None:
    """Returns the model for a client that is given none: CONVSERVE_MODEL, or None."""
    return os.environ.get(MODEL_VARIABLE) or None


def choose_retries(retry_unavailable: object = None) -> bool:
    """Returns whether lost calls are made again; None: as CONVSERVE_RETRY_UNAVAILABLE has it.

    Raises:
        InvalidRequest: The argument or the variable is of another kind.
    """
    if retry_unavailable is not None:
        return validate_flag("retry_unavailable", retry_unavailable)
    found = switch_of(RETRIES_VARIABLE)
    return True if found is None else found


def default_admin_socket() -> str | None:
    """Returns the socket for administration if none is given: CONVSERVE_ADMIN_SOCKET, or None."""
    return os.environ.get(ADMIN_SOCKET_VARIABLE) or None


def choose_key(key_file: object = None) -> CallerKey | None:
    """Returns the key in a file, or in that of the variable CONVSERVE_KEY_FILE; None: neither is.

    Raises:
        InvalidRequest: The path is of another kind.
    """
    if isinstance(key_file, os.PathLike):
        key_file = os.fspath(key_file)
    path = None if key_file is None else validate_text("key_file", key_file)
    path = path or os.environ.get(KEY_FILE_VARIABLE)
    return CallerKey(path) if path else None
