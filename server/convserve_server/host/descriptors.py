"""File descriptors: how many this process may have open, and whether it is at its limit."""

import os
import resource
from pathlib import Path

_OPEN = Path("/proc/self/fd")

#: Of the limit, what is left for the server itself when connections use the rest.
_RESERVE = 8


def raise_limit() -> int:
    """Allows this process and its children as many as the system grants.

    Returns: How many that are.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS states a hard limit that it does not grant
            return soft
    return hard


def limit_reached() -> bool:
    """Returns whether no more, or hardly any more, can be opened.

    It is False where the system does not say.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return len(os.listdir(_OPEN)) >= most - _RESERVE
    except FileNotFoundError:
        return False
    except OSError:  # to look needs a descriptor too
        return True
