"""Numbers in few characters."""

from __future__ import annotations

import math


def short(value: float | None) -> str:
    """Returns a number in at most six characters: three digits that matter, or thousands.

    Args:
        value: 0 or more; None: nobody knows, which is "-".
    """
    if value is None or math.isnan(value):
        return "-"
    if value < 0.0005:
        return "0"
    if value < 999.5:
        digits = max(0, 2 - math.floor(math.log10(value)))
        return f"{value:.{min(digits, 3)}f}"
    if value < 99_999.5:
        return f"{value:,.0f}"
    unit = min(4, math.floor(math.log10(value * 1.0005) / 3))
    value /= 1000**unit
    return f"{value:.{0 if value >= 99.5 else 1}f}{' kMGT'[unit]}"


def count(value: float) -> str:
    """Returns a whole number in at most six characters."""
    return f"{value:,.0f}" if value < 99_999.5 else short(value)


def mebibytes(value: float | None) -> str:
    """Returns bytes in MiB."""
    return "-" if value is None else f"{value / 2**20:,.0f}"


def milliseconds(value_s: float | None) -> str:
    """Returns seconds in ms."""
    return short(None if value_s is None else 1000 * value_s)


def percent(share: float | None) -> str:
    """Returns a share of 0 to 1 in percent."""
    return "-" if share is None else f"{share:.0%}"
