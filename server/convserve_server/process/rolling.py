"""A rolling restart: each worker is replaced by one that is started, and serves, before it goes.

So are guards, after the workers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from convserve_server.process.slot import Slot

#: Starts of a successor that fail in a row, until the restart is given up.
MOST_FAILURES = 3


@dataclass
class RollingRestart:
    """Which workers are still to be replaced, and how far the present one has come.

    Attributes:
        slots: All processes of the server; successors are added to them.
        stop: Asks a worker that serves to finish; one that does not is ended.
    """

    slots: list[Slot]
    stop: Callable[[Slot], None]
    _left: list[Slot] = field(default_factory=list)
    _old: Slot | None = None
    _new: Slot | None = None

    @property
    def active(self) -> bool:
        """Whether there is something left to do."""
        return bool(self._left) or self._new is not None

    def begin(self) -> None:
        """Has each worker that there is replaced, and then each guard."""
        self._left = [slot for slot in self.slots if slot.is_worker or slot.is_guard]

    def advance(self) -> None:
        """Does the next step if the one before is over. Called again and again."""
        if self._new is None and self._left:
            self._old = self._left.pop(0)
            # Both count for a while.
            self._new = Slot(self._old.number, self._old.module, bank=1 - self._old.bank)
            self.slots.append(self._new)
            if self._old.process is None:  # about to be started again, as it was
                self._forget_old()
        if self._new is None:
            return
        if self._old is not None and self._old.process is None and not self._old.leaving:
            # It has ended by itself; its successor replaces it.
            self._forget_old()
        if self._new.ready and self._old is not None and not self._old.leaving:
            self._old.leaving = True
            self.stop(self._old)
        if self._new.ready and (self._old is None or self._old.process is None):
            self._forget_old()
            self._new = None

    def failed(self) -> str | None:
        """Returns why the present successor cannot start, and gives up; None if it may yet."""
        new = self._new
        if new is None or new.process is not None or new.failures < MOST_FAILURES:
            return None
        if self._old is not None:
            self.slots.remove(new)
        self._old, self._new, self._left = None, None, []
        return new.refusal or "it does not start; the lines above say why"

    def _forget_old(self) -> None:
        if self._old in self.slots:
            self.slots.remove(self._old)
        self._old = None
