"""Why a worker ended, where the worker itself or the kernel says so."""

import contextlib
import signal

from convserve_host.memory import oom_kills
from convserve_server.host.resources import in_mib
from convserve_server.process.slot import Slot


class ExitReasons:
    """Explains ends of workers; each kill by the kernel explains one.

    Args:
        memory: Bytes that the server may use.
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        # Of the kernel's count, those that are known to have been workers of ours.
        self._explained = 0
        self._last_count = 0

    def kills(self) -> int:
        """Returns how many processes the kernel has killed for want of memory, as last read."""
        with contextlib.suppress(OSError):  # no descriptor is left to read it
            self._last_count = oom_kills() or 0
        return self._last_count

    def exit_reason(self, slot: Slot, status: int) -> str:
        """Returns why a worker ended and what to do, to follow a text; empty if nothing says so.

        Args:
            slot: Of the worker.
            status: Of its exit, negative for a signal.
        """
        if slot.refusal:
            return f" ({slot.refusal})"
        if status != -signal.SIGKILL:
            return ""
        # Several may have been killed before we look.
        explained = max(slot.oom_kills, self._explained)
        if self.kills() <= explained:
            return ""
        self._explained = explained + 1
        return (
            f" (killed by the kernel, out of memory at the limit of {in_mib(self._memory)}: "
            "give the server more memory, or fewer workers (--workers))"
        )
