"""What callers pass, converted: one function for each kind of argument, whatever it comes as.

A number of NumPy is a number; it is made one of Python's, since arithmetic with the clock in a type
of fewer digits would be off by minutes.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
from numbers import Real

from convserve.errors import InvalidRequest

LONGEST_S = 30 * 86_400.0
"""More seconds are as good as these, and overflow in the clocks of gRPC or of threads."""

_MOST_SHOWN = 80


def validate_seconds(field: str, value: object) -> float:
    """Returns a finite number of seconds above 0, at most LONGEST_S.

    Raises:
        InvalidRequest: It is none.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # An integer that is larger than any float.
            number = LONGEST_S if operator.gt(value, 0) else -LONGEST_S
        if 0 < number < math.inf:
            return min(number, LONGEST_S)
    raise InvalidRequest.expected(field, "a number of seconds above 0", shown(value))


def validate_int(field: str, value: object, least: int, most: int) -> int:
    """Returns an integer within bounds.

    Raises:
        InvalidRequest: It is none, or a bool, or beyond them.
    """
    number: int | None = None
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            number = operator.index(value)  # type: ignore[arg-type]  # That is what is tried.
    if number is None or not least <= number <= most:
        raise InvalidRequest.expected(field, f"an integer of {least} to {most}", shown(value))
    return number


def validate_uint(field: str, value: object, bits: int) -> int:
    """Returns an integer of 1 or more that fits an unsigned field of a message.

    Raises:
        InvalidRequest: It is none, or a bool, or 0, or has more bits.
    """
    return validate_int(field, value, 1, 2**bits - 1)


def validate_text(field: str, value: object) -> str:
    """Returns text that a message can carry.

    Raises:
        InvalidRequest: It is not a str, or holds half a character (a surrogate).
    """
    if not isinstance(value, str):
        raise InvalidRequest.expected(field, "a str", shown(value))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest.expected(field, "text of whole characters", shown(value)) from error
    return str(value)


def validate_flag(field: str, value: object) -> bool:
    """Returns True or False, also where it is NumPy's.

    Raises:
        InvalidRequest: It is neither.
    """
    if isinstance(value, bool) or (type(value).__module__, type(value).__name__) in _NUMPY_BOOLS:
        return bool(value)
    raise InvalidRequest.expected(field, "True or False", shown(value))


def switch_of(variable: str) -> bool | None:
    """Returns what a variable of the environment says; None: it is not set.

    Raises:
        InvalidRequest: It is neither 1 nor 0.
    """
    value = os.environ.get(variable) or None
    if value not in (None, "0", "1"):
        raise InvalidRequest.expected(variable, "1 or 0", shown(value))
    return None if value is None else value == "1"


# By name, since a health check has no other use for NumPy. Its 1.x has the second one.
_NUMPY_BOOLS = {("numpy", "bool"), ("numpy", "bool_")}


def shown(value: object) -> str:
    """Returns a value for a message: its repr, cut where that is long."""
    try:
        text = repr(value)
    except ValueError:  # An integer of more digits than Python converts.
        return f"a {type(value).__name__} of very many digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({type(value).__name__})"
