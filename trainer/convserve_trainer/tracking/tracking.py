"""Reports a training to its trackers, which cannot harm it: each has a thread and a queue."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TextIO

from convserve_trainer.errors import Interrupted
from convserve_trainer.runs.history import Epoch, History
from convserve_trainer.tracking.tracker import EndedRun, Figures, StartedRun, Tracker

log = logging.getLogger(__name__)

Factory = Callable[[], Tracker]
"""Makes a tracker of one seed's training."""

#: Until a tracker is given up at the end of a training, s.
PATIENCE_S = 30.0
#: The same after Ctrl-C, or an error.
_HASTE_S = 5.0


class Tracking:
    """Of one seed; closed by its `with`, which reports an error that ends the training.

    Args:
        trackers: by what the user calls them.
        out: takes warnings, a line each.
        patience_s: see PATIENCE_S.
    """

    def __init__(
        self,
        trackers: Sequence[tuple[str, Factory]],
        out: TextIO,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._factories = trackers
        self._out = out
        self._patience_s = patience_s
        self._threads: list[_Thread] = []
        self._reported = 0
        self._ended = False

    def __enter__(self) -> "Tracking":
        """Does nothing."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Reports an error, and waits a little for the trackers."""
        if self._threads and not self._ended:
            stopped = isinstance(error, KeyboardInterrupt | Interrupted)
            problem = (str(error).splitlines() or [""])[0] or type(error).__name__
            self._tell(lambda tracker: tracker.fail(problem, stopped=stopped))
            self._settle(min(_HASTE_S, self._patience_s))

    def start(self, run: StartedRun) -> None:
        """Reports that a training begins, or goes on."""
        self._reported = len(run.earlier)
        self._threads = [_Thread(name, make) for name, make in self._factories]
        self._tell(lambda tracker: tracker.start(run))

    def write(self, history: History) -> None:
        """Reports the epochs that were not yet."""
        for epoch in history.epochs[self._reported :]:
            shown = figures(epoch)
            self._tell(lambda tracker, shown=shown: tracker.epoch(shown))  # type: ignore[misc]
        self._reported = max(self._reported, len(history.epochs))

    def end(self, run: EndedRun) -> None:
        """Reports that a training has ended well, and waits for the trackers."""
        self._ended = True
        self._tell(lambda tracker: tracker.end(run))
        self._settle(self._patience_s)

    def _tell(self, work: Callable[[Tracker], None]) -> None:
        for thread in self._threads:
            thread.work.put(work)
        self._warn()

    def _settle(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.work.put(None)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                thread.problem = f"not done within {patience_s:g} s; given up"
        self._warn()

    def _warn(self) -> None:
        """Prints what became of trackers since the last time, a line for each once."""
        for thread in self._threads:
            if thread.problem and not thread.warned:
                thread.warned = True
                line = f"warning: tracker {thread.name}: {thread.problem}; the training goes on"
                print(line.removesuffix("; the training goes on") if self._ended else line,
                      file=self._out, flush=True)  # fmt: skip


def figures(epoch: Epoch) -> Figures:
    """Returns the figures of an epoch by their names, without those that it does not have."""
    return {name: value for name, value in asdict(epoch).items() if value is not None}


class _Thread(threading.Thread):
    """A tracker, at work on its own; the process does not wait for it."""

    def __init__(self, name: str, make: Factory) -> None:
        super().__init__(name=name, daemon=True)
        self.work: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self.problem = ""
        self.warned = False
        self._make = make
        self.start()

    def run(self) -> None:
        """Does what comes, until there is no more, or until it fails."""
        try:
            tracker = self._make()
            while (work := self.work.get()) is not None:
                work(tracker)
        except (Exception, SystemExit) as error:
            log.debug("tracker %s", self.name, exc_info=error)
            text = (str(error).splitlines() or [""])[0]
            self.problem = f"{type(error).__name__}: {text}; it is not called any more"
