"""The access log: one line for a call that ended, for those who look for one call among many.

A line names neither pixels nor keys nor files: only who called what, how it ended and how long that
lasted. Lines of calls that failed are bounded, so that a flood of failures does not fill the disk.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

_log = logging.getLogger("convserve_server.access")
# Whoever asks for the lines has them, whatever log_level says.
_log.setLevel(logging.INFO)

#: Lines of calls that failed: so many at once, and so many a second. Of 300 bytes each that is
#: 260 MB a day for each worker at the most.
_BURST, _PER_S = 100.0, 10.0
#: How often a line says how many were left out, s.
_REPORT_S = 10.0


@dataclass(frozen=True, slots=True)
class AccessLine:
    """What a line says.

    Attributes:
        request_id: the caller's, or ours.
        peer: address of the client, as "ipv4:127.0.0.1:51234".
        identity: whom the client's certificate or key names; empty without one.
        method: "/package.Service/Method".
        model: version that answers, as "NAME/VERSION"; empty while not known.
        images: of the call; 0 while not known.
        code: name of the status, as "OK".
        reason: see ServeError.reason; empty for a result.
        duration_ms: from the router to the answer.
        trace_id: 32 hexadecimal digits, if the call is traced.
        fault: what the answer says of a fault of ours, with the id of its traceback.
    """

    request_id: str
    peer: str
    identity: str
    method: str
    model: str
    images: int
    code: str
    reason: str
    duration_ms: float
    trace_id: str = ""
    fault: str = ""

    def __str__(self) -> str:
        """As text."""
        parts = [f"call {self.method}: {self.code} after {self.duration_ms:.3f} ms"]
        if self.reason:
            parts.append(self.reason)
        if self.model:
            parts.append(f"{self.model}, {self.images} images")
        if self.peer:
            parts.append(f"from {self.peer}")
        if self.identity:
            parts.append(f"as {self.identity!r}")
        parts.append(f"id {self.request_id}")
        if self.trace_id:
            parts.append(f"trace {self.trace_id}")
        if self.fault:
            parts.append(self.fault)
        return "; ".join(parts)


class AccessLog:
    """Decides which calls have a line, and writes it.

    Its methods may be called from any thread.

    Args:
        mode: off, errors or all.
        share: of the calls that end well, with all; 0 to 1.
        clock: returns seconds.

    Attributes:
        on: whether any call has one.
    """

    def __init__(
        self,
        mode: str = "off",
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._allowed = _BURST
        self._at = self._reported = clock()
        self._left_out = 0
        self.follow(mode, share)

    def follow(self, mode: str, share: float) -> None:
        """Changes which calls have a line from now on."""
        self._share = share if mode == "all" else 0.0
        self.on = mode != "off"

    def wants(self, *, failed: bool) -> bool:
        """Returns whether a call that has ended has a line.

        Args:
            failed: by a fault of ours, a deadline or a limit.
        """
        if not self.on:
            return False
        if failed:
            return self.allows()
        if self._left_out:
            self._report(self._clock())
        return self._share >= 1.0 or random.random() < self._share

    def allows(self) -> bool:
        """Returns whether there may be a line of one more call that failed; counts it."""
        now = self._clock()
        with self._lock:
            self._allowed = min(_BURST, self._allowed + _PER_S * (now - self._at))
            self._at = now
            allowed = self._allowed >= 1.0
            if allowed:
                self._allowed -= 1.0
            else:
                self._left_out += 1
        if self._left_out:
            self._report(now)
        return allowed

    def write(self, line: AccessLine, *, failed: bool) -> None:
        """Writes a line.

        Args:
            line: what it says.
            failed: by a fault of ours, a deadline or a limit.
        """
        level = logging.WARNING if failed else logging.INFO
        _log.log(level, "%s", line, extra={k: v for k, v in asdict(line).items() if v != ""})

    def close(self) -> None:
        """Says how many lines were left out that no line has counted yet."""
        self._report(float("inf"))

    def _report(self, now: float) -> None:
        with self._lock:
            if not self._left_out or now < self._reported + _REPORT_S:
                return
            self._reported = self._clock()
            left_out, self._left_out = self._left_out, 0
        _log.warning("access log: %d lines of calls that failed were left out", left_out)
