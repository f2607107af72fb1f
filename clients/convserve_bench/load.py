"""What load is made: how many callers, for how long, and at which rate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Load:
    """The settings of one run.

    Attributes:
        callers: Calls in flight: all the time without a rate, at most with one.
        connections: Over which they are spread, no more than there are callers.
        seconds: How long calls are begun that count.
        warm_up_s: How long calls are begun before, which do not.
        timeout_s: Longest wait for an answer once a call was sent, in seconds.
        rate: Calls that are due each second, at equal distances (open loop); None: each caller
            calls again as soon as it has its answer (closed loop).
        late_s: With a rate: a call that is sent later than that, though a caller was free, is late.
    """

    callers: int
    connections: int
    seconds: float
    warm_up_s: float
    timeout_s: float
    rate: float | None = None
    late_s: float = 1e-3
