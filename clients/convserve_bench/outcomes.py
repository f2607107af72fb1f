"""What becomes of a call: the status that the server gave, or that a client gives in its place.

Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), the mapping of errors and of HTTP status codes, and
the percent encoding of messages; RFC 9113, section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

import grpc

from convserve_bench import frames
from convserve_bench.header_blocks import Field

_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}

_RESETS = {
    frames.REFUSED_STREAM: "UNAVAILABLE",
    frames.CANCEL: "CANCELLED",
    frames.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
    frames.INADEQUATE_SECURITY: "PERMISSION_DENIED",
}
_HTTP = {
    b"400": "INTERNAL",
    b"401": "UNAUTHENTICATED",
    b"403": "PERMISSION_DENIED",
    b"404": "UNIMPLEMENTED",
    b"429": "UNAVAILABLE",
    b"502": "UNAVAILABLE",
    b"503": "UNAVAILABLE",
    b"504": "UNAVAILABLE",
}


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended.

    Attributes:
        name: Of the gRPC status: "OK".
        message: Why; "" if the server gave no reason.
    """

    name: str
    message: str = ""


OK = Status("OK")
"""The one object for it, so that a call costs one comparison."""


class Ended(NamedTuple):
    """One call that is over.

    Attributes:
        started_s: What was given when it was started.
        status: How it ended.
        reply: The message, after its head of 5 bytes; empty if none came.
    """

    started_s: float
    status: Status
    reply: bytes


def read_trailers(fields: list[Field]) -> Status:
    """Returns the status that is in the fields at the end of a reply."""
    values = dict(fields)
    if b"grpc-status" not in values:
        return read_head(fields) or Status("UNKNOWN", "the reply ended without a status")
    number = values[b"grpc-status"]
    name = _NAMES.get(int(number) if number.isdigit() else -1, "UNKNOWN")
    if name == "OK":
        return OK
    message = values.get(b"grpc-message", b"").decode("latin-1")
    return Status(name, unquote(message, errors="replace"))


def read_head(fields: list[Field]) -> Status | None:
    """Returns what is wrong with the fields at the beginning of a reply; None: nothing."""
    http = dict(fields).get(b":status", b"none")
    if http == b"200":
        return None
    name = _HTTP.get(http, "UNKNOWN")
    return Status(name, f"HTTP status {http.decode('latin-1')}, which is not an answer of gRPC")


def reset(code: int) -> Status:
    """Returns the status of a call whose stream the server ended with an error code."""
    return Status(_RESETS.get(code, "INTERNAL"), f"the server reset the stream, code {code}")
