"""Values of options: each function converts what was typed, or says what was expected.

They raise argparse.ArgumentTypeError, which ends the command with exit status 2.
"""

from __future__ import annotations

import argparse
import math

from convserve.address import validate_server
from convserve.arguments import validate_seconds
from convserve.errors import InvalidRequest
from convserve_bundle.contract import LABEL_RULE, is_name

MOST_IN_FLIGHT = 256


def address(text: str) -> str:
    """Returns a target that says where to connect."""
    try:
        return validate_server(text)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(error.violations[0].description) from error


def timeout_seconds(text: str) -> float:
    """Returns seconds above 0."""
    try:
        return validate_seconds("timeout", float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}") from error


def wait_seconds(text: str) -> float:
    """Returns seconds of 0 or more."""
    return _number(text, math.inf, "seconds of 0 or more")


def share(text: str) -> float:
    """Returns a number of 0 to 1."""
    return _number(text, 1.0, "a share of 0 to 1")


def _number(text: str, most: float, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan  # For which every comparison is false.
    if 0 <= number <= most and math.isfinite(number):
        return number
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")


def positive(text: str) -> int:
    """Returns an integer of 1 or more."""
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected an integer of 1 or more, got {text!r}")


def label(text: str) -> str:
    """Returns a label of a version; the server judges which there are."""
    if text:
        return text
    raise argparse.ArgumentTypeError("expected a label, got ''")


def new_label(text: str) -> str:
    """Returns a label that a version can be given."""
    if is_name(text):
        return text
    raise argparse.ArgumentTypeError(f"{LABEL_RULE}, got {text!r}")


def addresses(text: str) -> list[str]:
    """Returns targets that say where to connect, separated by commas."""
    # What gRPC itself separates by commas begins with one of these, and is one target.
    if text.startswith(("ipv4:", "ipv6:")):
        return [address(text)]
    return [address(each.strip()) for each in text.split(",")]


def in_flight(text: str) -> int:
    """Returns an integer of 1 to MOST_IN_FLIGHT."""
    if text.isdecimal() and 1 <= int(text) <= MOST_IN_FLIGHT:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected an integer of 1 to {MOST_IN_FLIGHT}, got {text!r}")
