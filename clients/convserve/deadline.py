"""One deadline over all that a call of the library does."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment by which the answer must be there.

    Attributes:
        timeout_s: Seconds that were given, for messages.
        moment_s: The moment on the clock time.monotonic().
    """

    timeout_s: float
    moment_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        """Returns the deadline that many seconds from now."""
        return cls(timeout_s, time.monotonic() + timeout_s)

    def spent_us(self) -> int:
        """Returns the microseconds since it was set."""
        return round((time.monotonic() - self.moment_s + self.timeout_s) * 1e6)

    def left_s(self) -> float:
        """Returns the seconds left, 0 once it has passed."""
        return max(0.0, self.moment_s - time.monotonic())
