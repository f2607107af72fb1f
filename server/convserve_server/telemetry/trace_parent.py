"""Which calls are traced: what the caller's traceparent says, or else a share of them.

Source: https://www.w3.org/TR/trace-context/.
"""

import random
import re
from collections.abc import Callable

from convserve_server.telemetry.call_notes import BatchNotes, CallTrace

PARENT, STATE = "traceparent", "tracestate"

#: Of version 00, whose form later versions begin with.
_LENGTH = 55
_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
#: Last digits of flags with "sampled", the lowest bit.
_SAMPLED = frozenset("13579bdf")
#: Longest tracestate that is passed on; the standard asks for this much at least.
_MOST_STATE = 512

#: Returns a header field of a call by its name in lower case, or None.
Header = Callable[[str], str | bytes | None]


class Sampler:
    """Decides for each call.

    Args:
        share: of the calls without a traceparent that are traced, 0 to 1.
        batch_ended: see CallTrace.
    """

    def __init__(self, share: float, batch_ended: Callable[[BatchNotes], None]) -> None:
        self._share = share
        self._batch_ended = batch_ended

    def trace(self, header: Header) -> CallTrace | None:
        """Returns the identity of a call that is to be traced; None if it is not."""
        parent = header(PARENT)
        if parent is not None and len(parent) >= _LENGTH and isinstance(parent, str):
            # First, since it decides nearly always, and costs least.
            if parent[_LENGTH - 1] not in _SAMPLED:
                return None
            found = _PARENT.fullmatch(parent)
            if found is not None and (len(parent) == _LENGTH or parent[:2] != "00"):
                state = header(STATE)
                return CallTrace(
                    int(found[1], 16),
                    int(found[2], 16),
                    state if isinstance(state, str) and len(state) <= _MOST_STATE else "",
                    self._batch_ended,
                )
        # One that is not valid counts as none.
        if self._share and random.random() < self._share:
            return CallTrace(0, 0, "", self._batch_ended)
        return None
