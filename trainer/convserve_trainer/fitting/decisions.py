"""What is decided between steps: by one process, or by several at the same step."""

from typing import TYPE_CHECKING

from convserve_trainer.fitting.chunks import StepChunker
from convserve_trainer.host import signals
from convserve_trainer.runs.run_folder import Run

if TYPE_CHECKING:
    from convserve_trainer.nets.process_group import Group


class Decisions:
    """Whether to stop, and whether a checkpoint is due.

    Of several processes a signal to any one stops all; checkpoints and the steps of a chunk are
    those of process 0.

    Args:
        request: to stop.
        run: knows when a checkpoint is due.
        chunker: whose steps become those of process 0.
        group: of processes that train together; None for one alone.

    Attributes:
        due: whether a checkpoint is, at the last look.
    """

    def __init__(
        self, request: signals.Request, run: Run, chunker: StepChunker, group: "Group | None"
    ) -> None:
        self.due = False
        self._request = request
        self._run = run
        self._chunker = chunker
        self._group = group
        self._signal = 0

    def look(self) -> None:
        """Decides; several processes do it together, after the same step.

        Raises:
            LostProcessError: another process has ended.
        """
        here = [self._request.number, self._run.due(), self._chunker.steps]
        if self._group is None:
            self._signal, due, _ = here
        else:
            rows = [list(map(int, row)) for row in self._group.gather(here)]
            self._signal = max(signal for signal, _, _ in rows)
            _, due, self._chunker.steps = rows[0]
        self.due = bool(due or self._signal)

    def obey(self) -> None:
        """Raises Stopped if there was a signal; of several processes, at the last look."""
        if self._group is None:
            self._request.obey()
        elif self._signal:
            self._group.leave()  # process 0 has kept the training
            raise signals.Stopped(self._signal)
