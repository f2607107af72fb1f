"""Work of one call in a queue, and its states.

NEW ──append──▶ WAITING ──last part taken──▶ RUNNING ──▶ FINISHED
└───────────────────┴──cancelled, expired, failed──────────┘
"""

import logging
import math
import time
from collections.abc import Callable, Hashable
from enum import Enum, IntEnum
from typing import Generic, TypeVar

from convserve_server.core.errors import ServeError

log = logging.getLogger(__name__)

R = TypeVar("R")


class JobState(Enum):
    """How far a job has come."""

    #: In no queue yet.
    NEW = 0
    #: Some of its parts are in the queue; others may be worked on.
    WAITING = 1
    #: All its parts are worked on.
    RUNNING = 2
    #: Answered, or given up: nobody needs its parts any more.
    FINISHED = 3


#: To find it there takes Python longer than the rest of making a job.
_NEW = JobState.NEW


class Priority(IntEnum):
    """Which calls are served first; see FairQueue."""

    #: Somebody waits for the answer.
    INTERACTIVE = 0
    #: Uses what interactive calls leave, and a share that is always theirs.
    BATCH = 1


class Job(Generic[R]):
    """Work of one call, in parts (images) that leave the queue one after the other.

    Args:
        count: of parts, at least 1.
        size: bytes that it holds while it is not finished.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, on the thread that has it; must not block.
        connection: by which the call came; connections share what is served equally.
        priority: of the call.

    Attributes:
        key: jobs whose keys differ never leave the queue together; only in a queue with keys.
        start_by: time.monotonic() by which its first part must have left the queue; else it is not
            worked on.
    """

    __slots__ = (
        "_done",
        "arrived",
        "connection",
        "count",
        "deadline",
        "key",
        "priority",
        "size",
        "start_by",
        "state",
        "taken",
    )

    def __init__(
        self,
        count: int,
        size: int,
        deadline: float | None,
        done: Callable[[R | ServeError], None],
        connection: Hashable,
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        self.count = count
        self.size = size
        self.deadline = deadline
        self.connection = connection
        self.priority = priority
        self.key: Hashable = None
        self.start_by = math.inf
        self._done = done
        self.arrived = time.monotonic()
        #: Parts that have left the queue.
        self.taken = 0
        self.state = _NEW

    def cost(self, first: int, count: int) -> float:
        """Returns what some of its parts cost, in the unit of its queue."""
        return float(count)

    def expired(self, now: float) -> bool:
        """Returns whether nobody waits for the answer any more at time.monotonic() now."""
        return self.deadline is not None and self.deadline <= now

    def finish(self, outcome: R | ServeError) -> None:
        """Hands over the outcome; for whoever turned the state to FINISHED."""
        try:
            self._done(outcome)
        except Exception:
            # The caller's fault must not end the thread and so every later job.
            log.exception("answering a call failed")
