"""A request on its way through a batcher, and what becomes of it."""

import logging
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convserve_server.errors import ServeError

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


class Answer(NamedTuple):
    """What the engine made of a request."""

    #: float32 [n, K], one row an image.
    probabilities: Probabilities
    #: Seconds from arrival to the start of the last batch that the request was in.
    queue_s: float
    #: Seconds in the engine, over all batches that the request was in.
    compute_s: float
    #: Whether some of the probabilities are not finite.
    damaged: bool = False


#: What becomes of a request.
Outcome = Answer | ServeError


class Request:
    """Images of one call on their way through the batcher.

    Args:
        pixels: uint8 [n, H, W, C], n at least 1.
        deadline: time.monotonic() after which nobody waits for the answer, or None.
        done: called once with the outcome, on the batcher's thread or the one that cancels; must
            not block.
        caller: whose it is; callers share batches equally.
    """

    __slots__ = (
        "_done",
        "arrived",
        "caller",
        "compute_s",
        "count",
        "damaged",
        "deadline",
        "finished",
        "pieces",
        "pixels",
        "returned",
        "taken",
    )

    def __init__(
        self,
        pixels: Pixels,
        deadline: float | None,
        done: Callable[[Outcome], None],
        caller: Hashable = "",
    ) -> None:
        self.pixels = pixels
        self.count = len(pixels)
        self.caller = caller
        self.deadline = deadline
        self._done = done
        self.arrived = time.monotonic()
        self.compute_s = 0.0
        #: Whether a row that has come back is not finite.
        self.damaged = False
        #: Images that have left the queue, and those whose rows have come back.
        self.taken = 0
        self.returned = 0
        #: Rows of a request that was in several batches, by the place of the first.
        self.pieces: dict[int, Probabilities] = {}
        self.finished = False

    def expired(self, now: float) -> bool:
        """Whether nobody waits for the answer any more at time.monotonic() now."""
        return self.deadline is not None and self.deadline <= now

    def finish(self, outcome: Outcome) -> None:
        """Hand over the outcome; whoever marks the request finished calls this."""
        try:
            self._done(outcome)
        except Exception:
            # The caller's fault must not take the batcher's thread and so every later request.
            log.exception("answering a request failed")


#: Images of a request in a batch: the place of the first in the request, and uint8 [n, H, W, C].
Piece = tuple[Request, int, Pixels]
