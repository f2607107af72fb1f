"""What requests give beside their bodies: query, headers, and parts of the path."""

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, unquote_to_bytes

from convserve_bundle.contract import VERSION_RULE, is_version
from convserve_protos import classifier_pb2 as pb
from convserve_server.core.errors import listed, quoted
from convserve_server.protocols.rest.messages import HttpRequest, Problem

#: Header with the time that the client waits, ms.
TIMEOUT = "x-timeout-ms"

_MOST_PARAMETERS = 32
_TIMEOUT = re.compile(r"[0-9]{1,10}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def wrong(message: str) -> Problem:
    """Returns the error of a request with a wrong value."""
    return Problem(400, "INVALID_REQUEST", message)


def query_of(request: HttpRequest, known: Collection[str]) -> Mapping[str, str]:
    """Returns the parameters of a query by their names.

    Args:
        request: with the query.
        known: the names that there are.

    Raises:
        Problem: if there are others, or one comes twice.
    """
    if not request.query:
        return {}
    try:
        pairs = parse_qsl(
            request.query,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as error:
        raise wrong(
            f"query: expected at most {_MOST_PARAMETERS} parameters of UTF-8, got others"
        ) from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            expected = listed(sorted(known)) if known else "no parameters"
            raise wrong(f"query: expected {expected}, got {quoted(name)}")
        if name in found:
            raise wrong(f"{name}: expected once, got it twice")
        found[name] = value
    return found


def truth_of(name: str, value: str) -> bool:
    """Returns a truth value.

    Raises:
        Problem: if it is not one.
    """
    found = _TRUTH.get(value.lower())
    if found is None:
        raise wrong(f"{name}: expected true or false, got {quoted(value)}")
    return found


def number_of(name: str, value: str, most: int) -> int:
    """Returns a whole number from 0 to most.

    Raises:
        Problem: if it is not one.
    """
    # Digits of other scripts are numbers to Python, too.
    if not (value.isascii() and value.isdigit() and len(value) <= 20 and int(value) <= most):
        raise wrong(f"{name}: expected a whole number from 0 to {most}, got {quoted(value)}")
    return int(value)


def timeout_of(request: HttpRequest, header: str = TIMEOUT) -> float | None:
    """Returns the seconds that the client waits; None if it does not say.

    Raises:
        Problem: if it is not a number of milliseconds, at least 1.
    """
    value = request.headers.get(header)
    if value is None:
        return None
    if not _TIMEOUT.fullmatch(value) or not int(value):
        raise wrong(f"{header}: expected milliseconds, 1 to 10 digits, got {quoted(value)}")
    return int(value) / 1000


def unquoted(name: str, text: str) -> str:
    """Returns a part of a path without percent signs.

    Raises:
        Problem: if it is not UTF-8.
    """
    if "%" not in text:
        return text
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise wrong(f"{name}: expected UTF-8 in the path, got other bytes") from error


def set_version(request: pb.ClassifyRequest, version: str) -> None:
    """Sets the version that a path asks for: by digits, or by its label.

    Raises:
        Problem: if it is a number, and not one that a version can have.
    """
    if not version.isdigit():
        request.version_label = version
    elif is_version(version):
        request.version = int(version)
    else:
        raise wrong(f"version: {VERSION_RULE}, got {quoted(version)}")
